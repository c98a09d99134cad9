"""The boundary family: GLiNER2.5's candidates and scores, and no number from a neighbour in the batch."""

import pytest
import torch

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import WindowBatch
from gliner_pipe.modeling.encoders.base import TaskVectors
from gliner_pipe.modeling.span_reps import boundary
from gliner_pipe.modeling.span_reps.base import Representations
from gliner_pipe.modeling.span_reps.boundary import Boundary
from gliner_pipe.modeling.span_reps.boundary_pool import BoundaryPool
from gliner_pipe.modeling.tasks import KINDS

HIDDEN = 24
SIZES = {"boundary_dim": 16, "pair_dim": 16, "content_dim": 8}
SMALL = {"start_top_k": 3, "end_top_k": 4, "ends_per_start": 2, "starts_per_end": 3, "candidate_budget": 7}
POOL = {"pool_boundary_top_k": 5, "pool_size": 9, "min_pool_per_query": 2}
CONTENT = {"enable_span_content": True, "content_soft_max_pool": True}
OF_PAIRS = [
    {"start_top_k": 3, "multihead_pair_compat_heads": 1},
    SMALL,
    {"candidate_budget": 12},
    {"bidirectional_proposals": False, **SMALL},
    {"enable_rotary_endpoints": True, "rotary_base": 100.0},
    CONTENT,
    {"enable_span_content": True, "reranker_endpoint_compat": False},
    {"endpoint_difference_features": True, "multihead_pair_compat_heads": 2},
    {"query_conditioned_inside_weight": True},
    {"use_inside_evidence": False, "boundary_refinement_layers": 2, "boundary_ffn_multiplier": 1.5},
    {"boundary_attention_layers": 2, "boundary_attention_window": 2},
    {
        "boundary_attention_layers": 1,
        "boundary_top_k_alpha": 0.5,
        "boundary_top_k_bucket": 2,
        "start_top_k": 2,
    },
]
OF_POOL = [
    {},
    POOL,
    {**POOL, "pool_size": 4, "min_pool_per_query": 3},
    {"min_pool_per_query": 0, "pool_size": 9},
    {"candidate_attention_layers": 0, "query_attention_layers": 0},
    {"candidate_attention_heads": 2, "query_attention_layers": 2, "use_inside_evidence": False},
    {"enable_span_content": True},
    {"boundary_attention_layers": 1, "boundary_refinement_layers": 0},
]


def pair(kind, options):
    """Return a block and the head of GLiNER2.5 with the same weights, all of them random."""
    configuration = pytest.importorskip("gliner2.configuration")
    model = pytest.importorskip("gliner2.models.boundary.model")
    pool = "shared" if kind is BoundaryPool else "per_query"
    settings = configuration.BoundaryHeadSettings(candidate_pool=pool, **SIZES, **options)
    torch.manual_seed(0)
    head = model.BoundaryHead(HIDDEN, settings, build_candidate_states=True).eval()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    block = kind(**SIZES, **options, candidate_states=True)
    block.build(HIDDEN)
    ours = block.state_dict().keys()
    theirs = {name: weight for name, weight in head.state_dict().items() if name in ours}
    assert ours - theirs.keys() == set()
    block.load_state_dict(theirs)
    return block.eval(), head


def batch(lengths=(9, 4, 1, 14), n_queries=(3, 2, 1, 3)):
    torch.manual_seed(1)
    words, queries = torch.randn(len(lengths), max(lengths), HIDDEN), torch.randn(len(lengths), 3, HIDDEN)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    query_mask = torch.arange(3) < torch.tensor(n_queries)[:, None]
    return words, mask, queries * query_mask[..., None], query_mask


def scored(candidates, row, n_queries):
    """Return the score of each span of each query of a row."""
    found = {}
    for query in range(n_queries):
        keep = candidates.valid[row, query]
        spans = candidates.spans[row, query][keep].tolist()
        for span, logit in zip(spans, candidates.logits[row, query][keep].tolist(), strict=True):
            found[(query, *span)] = logit
    return found


def peer_scored(head, words, queries):
    out = head(
        words, torch.ones(words.shape[:2], dtype=torch.bool), queries, torch.ones(queries.shape[:2]).bool()
    )
    some = out.candidates
    found = {}
    for query in range(queries.shape[1]):
        keep = some.valid_mask[0, query]
        spans = some.indices[0, query][keep].tolist()
        for span, logit in zip(spans, some.pair_logits[0, query][keep].tolist(), strict=True):
            found[(query, *span)] = logit
    return found


CASES = [*((Boundary, options) for options in OF_PAIRS), *((BoundaryPool, options) for options in OF_POOL)]


@pytest.mark.parametrize("kind,options", CASES)
@torch.no_grad()
def test_candidates_and_scores_equal_those_of_gliner2(kind, options):
    """Of each window by itself, whatever stands beside it in the batch."""
    block, head = pair(kind, options)
    words, mask, queries, query_mask = batch()
    read = block.boundary_encoder(words, mask)
    some = block.candidates(read, queries, query_mask)
    for row, length in enumerate(mask.sum(1).tolist()):
        n = int(query_mask[row].sum())
        ours, theirs = (
            scored(some, row, n),
            peer_scored(head, words[row, None, :length], queries[row, None, :n]),
        )
        assert ours.keys() == theirs.keys()
        assert ours
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)


@torch.no_grad()
def test_the_smooth_maximum_of_a_shared_pool_is_finite():
    """In GLiNER2.5, padding of the pool makes every score NaN."""
    block, _ = pair(BoundaryPool, {**CONTENT, **POOL})
    words, mask, queries, query_mask = batch()
    some = block.candidates(block.boundary_encoder(words, mask), queries, query_mask)
    assert some.logits.isfinite().all()
    assert (some.logits[some.valid] != boundary.MASKED).all()


@pytest.mark.parametrize("kind,options", [(Boundary, CONTENT), (Boundary, SMALL), (BoundaryPool, POOL)])
@torch.no_grad()
def test_given_spans_score_as_in_gliner2(kind, options):
    block, head = pair(kind, {**options, **({} if kind is Boundary else {"enable_span_content": True})})
    words, mask, queries, query_mask = batch((9, 14), (3, 3))
    spans = torch.tensor([[[0, 9], [3, 4], [2, 8]], [[13, 14], [0, 1], [0, 0]]])
    valid = torch.tensor([[True, True, True], [True, True, False]])
    scores = block.given(block.boundary_encoder(words, mask), queries, query_mask, spans, valid)
    wide = spans[:, None].expand(-1, 3, -1, -1)
    theirs = head.score_explicit_spans(
        words, mask, queries, query_mask, wide, valid[:, None].expand(-1, 3, -1)
    )
    some = valid[:, None].expand_as(scores)
    torch.testing.assert_close(scores[some], theirs[some], rtol=1e-5, atol=1e-5)


def windows_of(mask, own=None, unread=()):
    """Windows with these words; `unread` are (row, word) of words without subword tokens."""
    rows = len(mask)
    counts = mask.long()
    for row, word in unread:
        counts[row, word] = 0
    own = torch.stack([torch.zeros(rows).long(), mask.sum(1)], 1) if own is None else torch.tensor(own)
    nothing = torch.zeros(rows, 0, dtype=torch.long)
    return WindowBatch(nothing, nothing, counts, counts, mask, nothing, nothing.bool(), own)


def found_spans(block, words, mask, queries, limits, **options):
    vectors = Representations(words, words, queries, queries[:, :0])
    found = block.find(vectors, windows_of(mask, **options), limits)
    spans = zip(*(column.tolist() for column in found[:4]), strict=True)
    return dict(zip(spans, found.scores.tolist(), strict=True))


def peer_found(head, words, queries, limits):
    """GLiNER2.5's entities of one text, before overlapping ones are dropped, keyed as ours."""
    engine = pytest.importorskip("gliner2.models.boundary.model")
    full = torch.ones(1, words.shape[1], dtype=torch.bool)
    out = head(words, full, queries, torch.ones(queries.shape[:2], dtype=torch.bool))
    grouped = engine._group_scored_candidates(
        out.candidates,
        threshold=limits,
        probabilities=(out.candidates.pair_logits / head.settings.pair_temperature).sigmoid(),
        count_log_rates=out.count_log_rates,
        adaptive_threshold=head.settings.adaptive_threshold,
    )[0]
    some = range(len(grouped))
    if out.null_logits is not None:
        abstains = out.null_logits[0].sigmoid() > head.settings.abstention_threshold
        some = [label for label in some if not abstains[label]]
    return {(start, end - 1, label): score for label in some for score, start, end in grouped[label]}


DECISIONS = [
    {"pair_temperature": 3.0, "enable_abstention": False},
    {"abstention_threshold": 0.45, "enable_count_head": False},
    {"adaptive_threshold": True, "abstention_threshold": 0.6, **SMALL},
    {"adaptive_threshold": True, "abstention_threshold": 1.0},
]


@pytest.mark.parametrize("kind", [Boundary, BoundaryPool])
@pytest.mark.parametrize("options", DECISIONS)
@torch.no_grad()
def test_entities_equal_those_of_gliner2(kind, options, monkeypatch):
    """Thresholds, temperature, labels that abstain, and counts; also with few labels at once."""
    monkeypatch.setattr(boundary, "SCORES_AT_ONCE", 1 << 10)
    options = {name: value for name, value in options.items() if kind is Boundary or name not in SMALL}
    block, head = pair(kind, options)
    words, mask, queries, query_mask = batch()
    limits = torch.tensor([[0.3, 0.7, 0.9]]).repeat(4, 1).masked_fill(~query_mask, torch.inf)
    ours = found_spans(block, words, mask, queries, limits)
    assert ours
    for row, length in enumerate(mask.sum(1).tolist()):
        n = int(query_mask[row].sum())
        here = {span[1:]: score for span, score in ours.items() if span[0] == row}
        theirs = peer_found(head, words[row, None, :length], queries[row, None, :n], limits[row, None, :n])
        assert here == pytest.approx(theirs, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", [Boundary, BoundaryPool])
@torch.no_grad()
def test_spans_start_at_own_words_and_end_at_words_that_are_read(kind):
    block, _ = pair(kind, {"enable_abstention": False})
    words, mask, queries, _ = batch((9, 9), (3, 3))
    limits = torch.zeros(2, 3)
    every = found_spans(block, words, mask, queries, limits)
    some = found_spans(block, words, mask, queries, limits, own=[[2, 6], [0, 9]], unread=[(1, 4)])
    assert some == {
        (row, start, end, label): score
        for (row, start, end, label), score in every.items()
        if (row == 0 and 2 <= start < 6) or (row == 1 and start != 4 and end != 4)
    }
    assert any(start >= 6 for row, start, *_ in every if row == 0)


@pytest.mark.parametrize("kind,options", [(Boundary, SMALL), (BoundaryPool, POOL)])
@torch.no_grad()
def test_class_scores_equal_those_of_the_spans_found(kind, options):
    block, _ = pair(kind, {**options, "enable_abstention": False})
    words, mask, queries, _ = batch((9, 14), (3, 3))
    found = found_spans(block, words, mask, queries, torch.zeros(2, 3))
    spans = torch.tensor(sorted({span[:3] for span in found}))
    vectors = Representations(words, words, queries, queries[:, :0])
    scores = block.class_scores(vectors, windows_of(mask), spans)
    assert scores.shape == (len(spans), 3)
    table = {
        (*span, label): scores[at, label].item()
        for at, span in enumerate(spans.tolist())
        for label in range(3)
    }
    assert {span: table[span] for span in found} == pytest.approx(found, rel=1e-4, abs=1e-5)


@torch.no_grad()
def test_vectors_of_spans_equal_those_of_gliner2():
    block, head = pair(Boundary, SMALL)
    words, mask, queries, query_mask = batch((9,), (3,))
    expected = head(words, mask, queries, query_mask).candidates
    spans = expected.indices[:, 0] - torch.tensor([0, 1])
    keep = expected.valid_mask[:, 0]
    vectors = block.represent(words, spans.clamp(min=0), mask)
    torch.testing.assert_close(vectors[keep], expected.candidate_states[:, 0][keep], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "kind,options", [(Boundary, {"start_top_k": 2, "end_top_k": 2}), (BoundaryPool, POOL)]
)
@torch.no_grad()
def test_a_full_budget_is_reported_once(kind, options, caplog):
    block, _ = pair(kind, {**options, "enable_abstention": False})
    words, mask, queries, _ = batch((14, 14), (3, 3))
    for _ in range(2):
        found_spans(block, words, mask, queries, torch.zeros(2, 3))
    assert block.full_budgets > 1
    assert len([record for record in caplog.records if "span_rep" in record.getMessage()]) == 1
    roomy, _ = pair(kind, {"enable_abstention": False})
    found_spans(roomy, words, mask, queries, torch.zeros(2, 3))
    assert roomy.full_budgets == 0


@pytest.mark.parametrize("kind,options", [(Boundary, CONTENT), (BoundaryPool, {**CONTENT, **POOL})])
def test_gradients_are_finite(kind, options):
    block, _ = pair(kind, options)
    words, mask, queries, query_mask = batch()
    words.requires_grad_()
    some = block.candidates(block.boundary_encoder(words, mask), queries, query_mask)
    some.logits[some.valid].square().sum().backward()
    assert words.grad.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in block.parameters() if weight.grad is not None)


@pytest.mark.parametrize("kind", [Boundary, BoundaryPool])
def test_scores_of_all_spans_are_refused(kind):
    with pytest.raises(ConfigError, match="span_rep"):
        kind().score(torch.zeros(1, 2, 4), torch.zeros(1, 1, 4), torch.ones(1, 2, dtype=torch.bool))


@pytest.mark.parametrize(
    "kind,options",
    [
        (Boundary, {"multihead_pair_compat_heads": 3}),
        (Boundary, {"enable_rotary_endpoints": True, "pair_dim": 9, "multihead_pair_compat_heads": 3}),
        (BoundaryPool, {"candidate_attention_heads": 3}),
        (BoundaryPool, {"boundary_attention_layers": 1, "boundary_attention_heads": 3}),
        (BoundaryPool, {"adaptive_threshold": True, "enable_count_head": False}),
    ],
)
def test_options_that_do_not_fit_are_refused(kind, options):
    with pytest.raises(ConfigError, match="span_rep"):
        kind(**options)


@torch.no_grad()
def test_labels_of_a_shared_pool_see_the_fields_of_tasks():
    """As GLiNER2.5 scores all queries of a text in one pool; those of classifications take no part."""
    block, head = pair(BoundaryPool, {**POOL, "enable_abstention": False})
    words, mask, queries, _ = batch((9, 7), (3, 3))
    fields, mask_of_fields = torch.randn(2, 3, 2, HIDDEN), torch.ones(2, 3, 2).bool()
    kinds = torch.tensor([[KINDS.index(kind) for kind in KINDS]] * 2)
    tasks = TaskVectors(fields[:, :, 0], fields, mask_of_fields, kinds)
    vectors = Representations(words, words, queries, queries[:, :0], tasks, {})
    windows = windows_of(mask)
    (_, labels), *_ = block.in_blocks(vectors, windows)
    of_fields = block.of_fields(vectors, windows)
    assert not of_fields.valid[:, 4:].any()
    every = torch.cat([queries, fields[:, :2].flatten(1, 2)], 1)
    for row, length in enumerate((9, 7)):
        theirs = peer_scored(head, words[row, None, :length], every[row, None])
        ours = scored(labels, row, 3)
        ours |= {(query + 3, *span): score for (query, *span), score in scored(of_fields, row, 4).items()}
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    alone, _ = pair(Boundary, {})
    some = alone.of_fields(vectors, windows)
    torch.testing.assert_close(
        some.logits[:, :4],
        alone.candidates(alone.read(vectors, windows), every[:, 3:], mask_of_fields[:, :2].flatten(1)).logits,
    )
