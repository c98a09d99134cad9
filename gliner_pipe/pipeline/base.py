"""The base of the components: batched prediction, ``spacy train`` and saving."""

from __future__ import annotations

import logging
import math
import os
import random
import time
import weakref
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import torch
from spacy import util
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example, validate_examples, validate_get_examples
from spacy.vocab import Vocab
from torch import nn

from gliner_pipe.data.batching import cut_by_length, overhead_of
from gliner_pipe.data.checks import CountedExamples
from gliner_pipe.errors import CheckpointError, ConfigError, NotInitializedError, TrainingError
from gliner_pipe.modeling.batch import LossTerms
from gliner_pipe.modeling.block import available, described
from gliner_pipe.modeling.inference import TokenBudget
from gliner_pipe.modeling.layers.cache import Cache, evaluating
from gliner_pipe.pipeline import serialize
from gliner_pipe.pipeline.annotate import ALIGNMENT
from gliner_pipe.pipeline.buffers import annotate_buffered, documents_ahead
from gliner_pipe.pipeline.placement import PlacedPipe
from gliner_pipe.pipeline.thinc_optimizer import ThincDrivenOptimizer
from gliner_pipe.pipeline.word_splitters import WordSplitter, read_words
from gliner_pipe.registry import registry
from gliner_pipe.util.atomic import is_plain
from gliner_pipe.util.thread_lock import LOADING, Lock

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

_Factory = TypeVar("_Factory", bound=Callable[..., Any])

_process = os.getpid()


class Batch(Protocol):
    """What a training step reads from a batch."""

    @property
    def count(self) -> float:
        """Number of items that the loss sums over."""

    @property
    def n_pieces(self) -> int:
        """Subword tokens of the padded windows."""

    @property
    def dropped(self) -> Counter[str]:
        """Gold annotations missing from the targets, by reason."""

    def to(self, device: torch.device | str) -> Any:
        """Return the batch on `device`."""


class TorchPipe(PlacedPipe):
    """A spaCy component around a torch model.

    Parameters
    ----------
    vocab
        Vocabulary of the pipeline.
    name
        Name of the component in the pipeline.
    model
        The blocks, or a block that names a checkpoint.
    scorer
        Scorer for ``nlp.evaluate``.
    word_splitter
        Splits a document into the words that the model reads; the document's tokens when None.
    settings
        Values of `settings_type` that differ from the defaults.

    Attributes
    ----------
    factory
        Factory name of the component.
    report
        Counts of annotations and words left out, by reason.
    """

    is_trainable = True
    factory: ClassVar[str]

    def __init__(
        self,
        vocab: Vocab,
        name: str,
        model: Any,
        scorer: Callable[..., Any] | None = None,
        *,
        word_splitter: Any = None,
        settings: Mapping[str, Any],
    ) -> None:
        if not is_plain(name) or "/" in name:  # it is also the name of the component's folder
            found = f"is the name {name!r}, and a component is saved in a folder of its name"
            allowed = "names without slashes, ':', backslashes and control characters, other than '..'"
            raise ConfigError(f"components.{name}", found, allowed, "Choose another name")
        self._where = f"components.{name}"
        self.made_at = time.time()
        if not (word_splitter is None or isinstance(word_splitter, WordSplitter)):
            allowed = f"@word_splitters = {', '.join(available('word_splitters'))}"
            raise ConfigError(f"{self._where}.word_splitter", f"found {described(word_splitter)}", allowed)
        self.vocab = vocab
        self.name = name
        self.model: nn.Module = model
        self.scorer = scorer
        self.report: Counter[str] = Counter()
        self.budget: TokenBudget | None = None
        self.cfg = {**self.settings_type().model_dump(), **settings}
        #: Settings at construction, for ``serialize``; set by the subclass once it has read its labels.
        self.configured: Mapping[str, Any] = {}
        self._word_splitter: WordSplitter | None = word_splitter
        self._pipeline = PipelineOf(None)
        self._named_splitter: Cache[str, WordSplitter] = Cache(1)
        self._rng = random.Random(0)
        self._optimizer: ThincDrivenOptimizer | None = None
        self._lock = Lock()
        self._told: set[str] = set()

    @abstractmethod
    def prepare(self, docs: Sequence[Doc]) -> Any:
        """Return the input of ``run``, built on the CPU, possibly in a thread; the documents are not changed."""

    @abstractmethod
    def run(self, prepared: Any) -> list[Any]:
        """Return the prediction for each prepared document."""

    @abstractmethod
    def set_annotations(self, docs: Iterable[Doc], predictions: Iterable[Any]) -> None:
        """Write predictions to the documents."""

    @abstractmethod
    def _choose_labels(
        self, get_examples: Callable[[], Iterable[Example]], labels: list[Any] | None
    ) -> Sequence[str]:
        """Return the labels to train, and set what else the settings leave open; warn of labels without examples."""

    @abstractmethod
    def _build(self, labels: Sequence[str]) -> None:
        """Create the weights unless they exist."""

    @abstractmethod
    def draw(self, examples: Sequence[Example], rng: random.Random) -> Any:
        """Return the training windows and targets of examples, before padding; `rng` is the only source of chance."""

    @abstractmethod
    def current_settings(self) -> dict[str, Any]:
        """Return the current settings, labels included, as JSON values."""

    @abstractmethod
    def restore_settings(self, values: Mapping[str, Any]) -> None:
        """Set what ``current_settings`` returned."""

    # -- settings and model --------------------------------------------------------------------------------

    @property
    def threshold(self) -> float:
        """Minimum score of an entity."""
        return float(self.cfg["threshold"])

    @threshold.setter
    def threshold(self, value: float) -> None:
        self.cfg["threshold"] = value

    @property
    def network(self) -> Any:
        """The blocks; a checkpoint given by name is loaded on first use, by the first thread that needs it."""
        if not isinstance(self.model, self.network_type):
            with LOADING:
                named: Any = self.model
                if not isinstance(named, self.network_type):
                    with self.placed():
                        model = named.materialize()
                    if self._word_splitter is None:
                        self._splitter_of(model)  # refuses an unknown one
                    self._move(model)
                    self.model = model
        return self.model

    def replace_model(self, model: Any) -> None:
        """Use another model, and reset the optimizer and the memory budget."""
        self._move(model)
        self.model = model
        self._optimizer = self.budget = None

    def _built(self) -> Any:
        """Return the model with its weights, for what needs no device: workers prepare training data with it."""
        _use_one_thread_after_fork()
        if not self.network.is_built:
            raise NotInitializedError(
                f"The component {self.name!r} has no weights yet. Call nlp.initialize(), train it with "
                "python -m gliner_pipe.train, load a trained pipeline with spacy.load, or name a "
                "checkpoint in its config (model = ...)."
            )
        return self.network

    def load(self) -> None:
        """Load a checkpoint given by name now, and not when the first document comes.

        Raises
        ------
        NotInitializedError
            If the component has no weights.
        """
        self._built()
        self.budget = self.token_budget

    def _ready(self) -> Any:
        """Return the model with its weights, at the configured precision."""
        model = self._built()
        self._set_precision()
        return model

    def belong_to(self, nlp: Language) -> Self:
        """Use the tokenizer of this pipeline in ``make_doc``; returns the component."""
        self._pipeline = PipelineOf(nlp)
        return self

    @property
    def sections(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The component's section in the config: as it was made, and as the pipeline has read it last.

        ``nlp.config`` always shows the former. The latter is what ``nlp.from_disk`` has read just before the component.
        """
        nlp = self._pipeline.get()
        if nlp is None or self.name not in nlp.component_names:
            return {}, {}
        read = (nlp._config.get("components") or {}).get(self.name) or {}
        return nlp.get_pipe_config(self.name), {key: read[key] for key in read if key != "factory"}

    def make_doc(self, text: str) -> Doc:
        """Return a document of a text, made by the pipeline; without one (after unpickling) by its language."""
        nlp = self._pipeline.get() or util.get_lang_class(self.vocab.lang)(self.vocab)
        return nlp.make_doc(text)

    @property
    def word_splitter(self) -> WordSplitter:
        """Splits documents into words: as configured, else as the checkpoint requires, else into tokens."""
        if self._word_splitter is not None:
            return self._word_splitter
        return self._splitter_of(self.network)

    def _splitter_of(self, network: Any) -> WordSplitter:
        """Return the word splitter that a checkpoint was trained with; the document's tokens if it is none.

        Raises
        ------
        CheckpointError
            If no such splitter is registered.
        """
        section = network.word_splitter or {"@word_splitters": "spacy"}

        def make() -> WordSplitter:
            name, arguments = section["@word_splitters"], {k: v for k, v in section.items() if k[0] != "@"}
            if name not in (known := available("word_splitters")):
                raise CheckpointError(
                    f"{self._where}.model has words_splitter_type = {name!r}; allowed: {', '.join(known)}. "
                    f"Set {self._where}.word_splitter: it takes precedence."
                )
            splitter: WordSplitter = registry.word_splitters.get(name)(**arguments)
            return splitter

        return self._named_splitter.get(repr(section), make)

    def add_to_report(self, counts: Counter[str]) -> None:
        """Add counts to ``report``."""
        if counts:
            with self._lock:
                self.report.update(+counts)  # without reasons that were counted 0 times

    def tell_alignment(self, counts: Mapping[str, int]) -> None:
        """Log once that entities were changed or left out because the words of the model are not spaCy's tokens."""
        if any(counts.get(reason) for reason in ALIGNMENT):
            self._tell(
                "reads other words than spaCy's tokens, so some entities are adjusted or left out (alignment_mode); "
                "component.report counts them. For spaCy's tokens as words, so that every entity is kept as found, "
                'set word_splitter = {"@word_splitters": "spacy"}.'
            )

    # -- prediction ----------------------------------------------------------------------------------------

    @property
    def token_budget(self) -> TokenBudget:
        """Number of subword tokens run at once; it adapts from one call to the next."""
        budget = self.budget
        if budget is None:
            budget = self.budget = TokenBudget(self.network.encoder.backbone.max_tokens)
        return budget

    def __call__(self, doc: Doc) -> Doc:
        """Annotate one document."""
        self.set_annotations([doc], self.predict([doc]))
        return doc

    def predict(self, docs: Iterable[Doc]) -> list[Any]:
        """Return the prediction for each document, in words, for ``set_annotations``; documents are not changed."""
        with evaluating(self.network):
            return self.run(self.prepare(list(docs)))

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 64) -> Iterator[Doc]:
        """Annotate a stream of documents in order; the stream may be endless.

        Batches are measured in subword tokens, so `batch_size` never changes a score. Windows of similar length run
        together, taken from a buffer of 16 times `batch_size` documents, at most 1,024 documents or about 32,000 words.

        Parameters
        ----------
        stream
            Documents.
        batch_size
            With 1 there is no buffer: each document is returned before the next is read. The component's own
            ``batch_size``, where set, is the size of the buffer.

        Notes
        -----
        If a document cannot be annotated, the error handler (``nlp.set_error_handler``) receives it alone; all others
        are returned.
        """
        n_docs = self.cfg["batch_size"] or documents_ahead(batch_size)
        # while another device runs the model, a thread tokenizes the next documents
        in_thread = self.device.type != "cpu" and n_docs > 1
        yield from annotate_buffered(self, stream, n_docs, in_thread=in_thread)

    # -- training ------------------------------------------------------------------------------------------

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: list[Any] | None = None,
    ) -> None:
        """Load the pretrained weights, and take from the data what the settings leave open; existing weights stay.

        Parameters
        ----------
        get_examples
            Returns examples. Their labels are used when neither `labels` nor the component's own are given. ``gliner``
            also takes its relations from them when it has none and its model has a relation layer;
            ``token_classifier`` the span groups where ``span_setter`` is inferred.
        nlp
            Not used.
        labels
            The label set. If a ``token_classifier`` has weights for another one, its decoder is initialized again.

        Raises
        ------
        ConfigError
            If the component has labels, uses all of them for every text, and none occurs in the examples.
        DataError
            If the component has no labels, and no entities are found where its settings say.
        """
        validate_get_examples(_some(get_examples), f"{type(self).__name__}.initialize")
        chosen = self._choose_labels(get_examples, labels)
        self._rng = random.Random(random.getrandbits(64))  # spaCy seeds the global generator
        with self.placed():
            self._build(chosen)
        self._move(self.network.eval())

    def collate(self, examples: Sequence[Example], rng: random.Random | None = None) -> Any:
        """Return a training batch on the CPU.

        Parameters
        ----------
        examples
            Examples with gold annotations.
        rng
            The only source of chance; the component's own generator when None.
        """
        return self.draw(examples, rng or self._rng).whole()

    def count_pieces(self, examples: Iterable[Example]) -> list[int]:
        """Return the number of subword tokens of each example's text, without prompt and special tokens.

        The training loop uses it for batch sizes in subword tokens.
        """
        with self.placed():
            split = [self.word_splitter.split(example.reference) for example in examples]
        _, pieces = read_words(self._built().encoder.backbone, split)
        return [len(one.ids) for one in pieces]

    def denominator(self, count: float) -> float:
        """Return the divisor of the summed loss of a step."""
        return float(self.network.denominator(count))

    def get_loss(self, examples: Iterable[Example], scores: Batch | None = None) -> LossTerms:
        """Return the loss of examples, as a sum.

        Parameters
        ----------
        examples
            Examples with gold annotations.
        scores
            Their batch from ``collate``, if it exists already.
        """
        batch = scores if scores is not None else self.collate(list(examples))
        terms: LossTerms = self.network(batch.to(self.network.device))
        return terms

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Any = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Add the gradients of examples; called by ``spacy train``.

        Parameters
        ----------
        examples
            Examples with gold annotations.
        drop
            Ignored: dropout is a setting of the blocks.
        sgd
            A thinc optimizer, for its learning rate; None or False only accumulates gradients.
        losses
            Receives the loss under the component's name.

        Raises
        ------
        TrainingError
            If the loss is NaN or infinite; the weights are as before.
        """
        examples = list(examples)
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        validate_examples(examples, f"{type(self).__name__}.update")
        examples = [example for example in examples if len(example.reference)]
        if not examples:
            return losses
        drawn = self.draw(examples, self._rng)
        # parts of similar length: less padding, with the same gradients
        cut = cut_by_length(drawn.sizes(), overhead=overhead_of(self.network.device.type))
        parts: list[Batch] = [drawn.lay_out(texts) for texts in cut]
        divisor = self.denominator(sum(part.count for part in parts)) or 1.0
        self.network.train()
        total = 0.0
        for part in parts:
            loss = self.get_loss(examples, part).total / divisor
            loss.backward()
            total += float(loss.detach())
        if not math.isfinite(total):
            self.network.zero_grad(set_to_none=True)
            raise TrainingError(
                f"[{self._where}] The loss is {total}. Lower learn_rate in [training.optimizer], or set "
                "max_learn_rate for the component"
            )
        self.add_to_report(sum((part.dropped for part in parts), drawn.dropped))
        losses[self.name] += total
        if sgd not in (None, False):
            self.finish_update(sgd)
        return losses

    def finish_update(self, sgd: Any) -> None:
        """Apply the accumulated gradients with the learning rate, weight decay and clipping of `sgd`."""
        if self._optimizer is None:
            self._optimizer = ThincDrivenOptimizer(
                self.network,
                sgd,
                task_lr_ratio=self.cfg["task_lr_ratio"],
                max_learn_rate=self.cfg["max_learn_rate"],
                tell=self._tell_setting,
            )
        self._optimizer.step(sgd)

    def _tell_setting(self, setting: str, text: str) -> None:
        """Log a warning about a setting; a method, so that the optimizer can be pickled."""
        logger.warning("[%s.%s] %s.", self._where, setting, text)

    def score(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        """Return the scores of the component's scorer, which receives the current settings."""
        scores: dict[str, Any] = super().score(examples, **{**self.cfg, **kwargs})
        return scores

    # -- saving --------------------------------------------------------------------------------------------

    def to_disk(self, path: Any, *, exclude: Iterable[str] = ()) -> None:
        """Write weights, backbone configuration, tokenizer, and settings changed at run time."""
        serialize.to_disk(self, util.ensure_path(path), exclude)

    def from_disk(self, path: Any, *, exclude: Iterable[str] = ()) -> Self:
        """Load what ``to_disk`` wrote, without network access."""
        with self.placed():
            serialize.from_disk(self, util.ensure_path(path), exclude)
        return self

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """Return what ``to_disk`` writes, as bytes."""
        return serialize.to_bytes(self, exclude)

    def from_bytes(self, data: bytes, *, exclude: Iterable[str] = ()) -> Self:
        """Load the result of ``to_bytes``."""
        with self.placed():
            serialize.from_bytes(self, data, exclude)
        return self

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Replace ``components.*`` by this component's section in errors that its blocks raise."""
        try:
            yield
        except ConfigError as error:
            where = f"components.*.{error.where}" if error.where == "model" else error.where
            if not where.startswith("components.*."):
                raise
            where = where.replace("components.*", self._where, 1)
            raise ConfigError(where, error.found, error.allowed, error.do) from error


class PipelineOf:
    """The pipeline of a component, which neither keeps it in memory nor is pickled with it."""

    def __init__(self, nlp: Language | None) -> None:
        self.get: Callable[[], Language | None] = (lambda: None) if nlp is None else weakref.ref(nlp)

    def __reduce__(self) -> tuple[type[PipelineOf], tuple[None]]:
        return PipelineOf, (None,)


def _use_one_thread_after_fork() -> None:
    """Limit torch to one thread in a process forked from one that had imported torch.

    OpenMP's threads do not survive the fork, so the first parallel operation of the child would wait for them forever.
    The workers of ``nlp.pipe(n_process=...)`` are such processes, and should use one thread each anyway.
    """
    global _process
    if _process != os.getpid():
        _process = os.getpid()
        torch.set_num_threads(1)


def _some(get_examples: Any) -> Any:
    """Return a function that returns examples to validate: one of data that do not fit into memory, else all."""
    if not callable(get_examples):
        return get_examples

    def some() -> Iterable[Example]:
        examples = get_examples()
        return examples[:1] if isinstance(examples, CountedExamples) else examples

    return some
