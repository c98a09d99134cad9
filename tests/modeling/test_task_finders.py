import pytest
import torch

from gliner_pipe.modeling.backbones.base import WindowBatch
from gliner_pipe.modeling.counters.lstm import CountLstm, CountLstmV2
from gliner_pipe.modeling.encoders.base import TaskVectors
from gliner_pipe.modeling.span_reps import base
from gliner_pipe.modeling.span_reps.base import Representations
from gliner_pipe.modeling.span_reps.marker import MarkerV0
from gliner_pipe.modeling.task_finders import CHOICE, find_choices, find_with_labels, slot_queries, whole_rows
from gliner_pipe.modeling.tasks import KINDS

SIZE, WIDTH = 16, 3
RECORD, RELATION, CLASSES = range(len(KINDS))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def windows(counts, own, unknown=None):
    """Return windows of words of one subword token each, with these numbers of words."""
    counts = torch.tensor(counts)
    mask = torch.arange(int(counts.max())) < counts[:, None]
    ids = mask.long()
    return WindowBatch(
        ids, ids, ids.cumsum(1) - 1, ids, mask, ids[:, :0], mask[:, :0], torch.tensor(own), unknown
    )


def tasks(kinds, n_fields):
    kinds, n_fields = torch.tensor(kinds), torch.tensor(n_fields)
    mask = torch.arange(int(n_fields.max())) < n_fields[..., None]
    fields = torch.randn(*mask.shape, SIZE) * mask[..., None]
    return TaskVectors(torch.randn(*kinds.shape, SIZE), fields, mask, kinds)


def counting(kind=CountLstm, **numbers):
    """Return a counter that predicts these numbers of instances, by the kind of task that a group vector stands for."""
    counter = kind()
    counter.build(SIZE)
    counter.eval()
    return counter


def count_as(counter, vectors, numbers):
    """Make the counter predict given numbers for the tasks of a batch, which are told apart by their vectors."""
    vectors.groups.zero_()
    for (row, task), number in numbers.items():
        vectors.groups[row, task, 0] = number

    def count(groups):
        return torch.nn.functional.one_hot(groups[..., 0].long(), 20).float()

    counter.count = count
    return vectors


@pytest.mark.parametrize("kind", [CountLstm, CountLstmV2])
def test_slot_queries_are_those_of_each_task_alone(kind):
    counter = counting(kind)
    vectors = tasks([[RECORD, RELATION, CLASSES], [RELATION, RECORD, -1]], [[3, 2, 5], [2, 1, 0]])
    count_as(counter, vectors, {(0, 0): 2, (0, 1): 1, (0, 2): 3, (1, 0): 4, (1, 1): 3})
    limits = torch.rand(2, 3, 5)
    columns = slot_queries(counter, vectors, ["record"], limits)
    assert columns.queries.shape == (2, 6, SIZE)
    for row, task, size, number in ((0, 0, 3, 2), (1, 1, 1, 3)):
        expected = counter(vectors.fields[row, task, :size][None], number)[0].flatten(0, 1)
        n = size * number
        torch.testing.assert_close(columns.queries[row, :n], expected)
        names = [[task, slot, field] for slot in range(number) for field in range(size)]
        assert columns.names[row, :n].tolist() == names
        assert torch.equal(columns.limits[row, :n], limits[row, task, :size].repeat(number))
    assert columns.limits[1, 3:].isinf().all() and (columns.names[1, 3:] == -1).all()
    relations = slot_queries(counter, vectors, ["relation"], limits)
    assert [len({*map(tuple, names.tolist())} - {(-1, -1, -1)}) for names in relations.names] == [2, 8]
    both = slot_queries(counter, vectors, ["record", "relation"], limits)
    for part in (columns, relations):
        for row, column in (part.names[..., 0] >= 0).nonzero().tolist():
            (at,) = (both.names[row] == part.names[row, column]).all(1).nonzero()[:, 0].tolist()
            torch.testing.assert_close(both.queries[row, at], part.queries[row, column])
            assert both.limits[row, at] == part.limits[row, column]
    assert (both.names[..., 0] >= 0).sum(1).tolist() == [8, 11]


def test_a_task_without_instances_has_no_queries():
    counter = counting()
    vectors = tasks([[RECORD]], [[2]])
    count_as(counter, vectors, {(0, 0): 0})
    assert slot_queries(counter, vectors, ["record"], torch.zeros(1, 1, 2)) is None
    assert slot_queries(counter, vectors, ["relation"], torch.zeros(1, 1, 2)) is None


def scene(n_labels=2):
    """Return a span representation, vectors, windows and columns of two rows, of which the second owns words 2 to 4."""
    span_rep = MarkerV0(WIDTH)
    span_rep.build(SIZE)
    span_rep.eval()
    words, labels = torch.randn(2, 7, SIZE), torch.randn(2, n_labels, SIZE)
    vectors = Representations(words, words, labels, labels[:, :0])
    counter = counting()
    found = tasks([[RECORD, RELATION]] * 2, [[3, 2]] * 2)
    count_as(counter, found, {(0, 0): 1, (0, 1): 2, (1, 0): 2, (1, 1): 0})
    columns = slot_queries(counter, found, ["record"], torch.full((2, 2, 3), 0.5))
    return span_rep, vectors, windows([7, 6], [[0, 7], [2, 5]]), columns


def as_set(found):
    return {tuple(round(float(value), 4) for value in one) for one in zip(*found, strict=True)}


@torch.inference_mode()
@pytest.mark.parametrize("many", [False, True])
def test_values_and_entities_are_those_of_two_passes(many, monkeypatch):
    span_rep, vectors, batch, columns = scene()
    if many:
        monkeypatch.setattr(base, "MANY_LABELS", 2)
        monkeypatch.setattr("gliner_pipe.modeling.task_finders.MANY_LABELS", 2)
        vectors = vectors._replace(labels=vectors.labels[:1].expand(2, -1, -1))
    limits = torch.full((2, 2), 0.5)
    spans, values = find_with_labels(span_rep, vectors, batch, limits, columns)
    assert as_set(spans) == as_set(span_rep.find(vectors, batch, limits))
    by_query = vectors._replace(labels=columns.queries)
    alone = span_rep.find(by_query, whole_rows(batch), columns.limits)
    names = columns.names[alone.rows, alone.labels].unbind(1)
    assert as_set(values) == as_set((alone.rows, *names, alone.starts, alone.ends, alone.scores))
    assert {0, 1, 5} & set(values.starts[values.rows == 1].tolist()) and len(spans.rows)
    assert values.ends[values.rows == 1].max() <= 5 and values.rows.unique().tolist() == [0, 1]


@torch.inference_mode()
def test_a_choice_has_the_score_of_its_word_as_a_span():
    span_rep, vectors, batch, columns = scene()
    places = torch.full((2, 2, 3, 2), -1)
    places[:, 0, 1] = torch.tensor([2, 4])
    places[0, 0, 2, 0] = 1
    limits = torch.zeros(2, 2, 3)
    found = find_choices(span_rep, vectors, batch, columns, places, limits)
    logits = span_rep.score(vectors.span_words, columns.queries, batch.word_mask).sigmoid()
    expected = set()
    for row, count in ((0, 1), (1, 2)):
        for slot in range(count):
            for field, choice, place in [(1, 0, 2), (1, 1, 4), *([(2, 0, 1)] if row == 0 else [])]:
                score = logits[row, place, 0, slot * 3 + field]
                expected.add((row, 0, slot, field, choice, CHOICE, round(float(score), 4)))
    assert as_set(found) == expected
    limits[:] = 1.0
    assert not len(find_choices(span_rep, vectors, batch, columns, places, limits).rows)


def test_values_do_not_start_or_end_at_words_outside_the_text():
    span_rep, vectors, batch, columns = scene()
    unknown = torch.zeros_like(batch.word_mask)
    unknown[:, :2] = unknown[:, 5:] = True
    batch = windows([7, 6], [[2, 7], [2, 5]], unknown)
    with torch.inference_mode():
        everything = columns._replace(limits=columns.limits.where(columns.limits.isinf(), torch.tensor(0.0)))
        _, values = find_with_labels(span_rep, vectors, batch, torch.full((2, 2), 0.5), everything)
    assert values.starts.unique().tolist() == values.ends.unique().tolist() == [2, 3, 4]
