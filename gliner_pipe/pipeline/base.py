"""The base of all spaCy components around a torch model: batched prediction, training, saving, devices, precision."""

from __future__ import annotations

import os
import random
import threading
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import torch
from spacy import util
from spacy.pipeline import Pipe
from spacy.tokens import Doc
from spacy.training import Example, validate_examples
from spacy.vocab import Vocab
from torch import nn

from gliner_pipe.errors import ConfigError, NotInitializedError
from gliner_pipe.modeling.batch import LossTerms
from gliner_pipe.modeling.inference import TokenBudget
from gliner_pipe.modeling.layers.eval_mode import evaluating
from gliner_pipe.modeling.precision import (
    Precision,
    check_device,
    check_precision,
    has_text_encoder,
    set_precision,
)
from gliner_pipe.pipeline import serialize
from gliner_pipe.pipeline.thinc_optimizer import ThincBridge
from gliner_pipe.util.atomic import is_plain
from gliner_pipe.util.prefetch import ahead
from gliner_pipe.util.thread_lock import LOADING, Lock

if TYPE_CHECKING:
    from typing_extensions import Self


class RunsInPrecision:
    """A part of ``TorchPipe``: how its model runs without gradients. It can be changed at run time."""

    cfg: Mapping[str, Any]
    network: Any
    _where: str

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        raise NotImplementedError

    @property
    def dtype(self) -> str | None:
        """Numbers that the model runs with: ``"fp32"``, ``"bf16"``, ``"fp16"``, or None for those it has.

        As `quantize` and `compile`, it is about running without gradients: training and saving use the weights as they
        are.
        """
        return Precision.of(self.cfg).dtype

    @dtype.setter
    def dtype(self, value: str | None) -> None:
        self._change_precision(dtype=value)

    @property
    def quantize(self) -> str | None:
        """``"int8"`` for linear layers of 8 bits in the text encoder, or None."""
        return Precision.of(self.cfg).quantize

    @quantize.setter
    def quantize(self, value: str | None) -> None:
        self._change_precision(quantize=value)

    @property
    def compile(self) -> bool:
        """Whether torch compiles the text encoder."""
        return Precision.of(self.cfg).compile

    @compile.setter
    def compile(self, value: bool) -> None:
        self._change_precision(compile=value)

    def _change_precision(self, **changes: Any) -> None:
        cfg = {**self.cfg, **changes}
        check_precision(cfg, self._where)
        check_device(Precision.of(cfg), self.device, self._where)
        self.cfg = cfg

    def _set_precision(self) -> None:
        """Tell the model what the settings are now."""
        precision = Precision.of(self.cfg)
        if precision != Precision():
            check_precision(self.cfg, self._where)
            check_device(precision, self.network.device, self._where)
            if not has_text_encoder(self.network):
                raise ConfigError(
                    f"{self._where}.model",
                    f"has no transformer that could run in {precision}",
                    "dtype = null, quantize = null and compile = false for this model",
                )
        set_precision(self.network, precision)


_PROCESS = [os.getpid()]


def use_one_thread_after_fork() -> None:
    """Compute on one thread in a process that was forked from one where torch was imported.

    OpenMP's threads stay behind in the parent, so the first parallel operation of the child waits for them without
    end. The workers of ``nlp.pipe(n_process=...)`` are such processes, and one thread each is what they want.
    """
    if _PROCESS[0] != os.getpid():
        _PROCESS[0] = os.getpid()
        torch.set_num_threads(1)


def end_with_parent(parent: int, every: float = 1.0) -> None:
    """End this process once its parent is gone, also where the parent was killed.

    Workers of torch look after their parent between two batches only: one whose batch nobody takes would stay.

    Parameters
    ----------
    parent
        Number of the process that started this one.
    every
        Seconds between two looks.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


#: Documents read ahead by ``pipe``, for each of a batch of spaCy's.
READ_AHEAD = 16
#: Documents, and their words, that are read ahead at most (one document at least).
MOST_DOCS, MOST_WORDS = 1024, 1 << 15


class Batch(Protocol):
    """What a training step reads of a batch."""

    @property
    def count(self) -> float:
        """What the loss is over."""

    @property
    def n_pieces(self) -> int:
        """Pieces of the padded windows."""

    @property
    def dropped(self) -> Counter[str]:
        """Gold annotations that are missing from the targets."""

    def to(self, device: torch.device | str) -> Any:
        """Return the batch on `device`."""


class TorchPipe(RunsInPrecision, Pipe):  # type: ignore[misc]
    """A spaCy component around a torch model.

    Parameters
    ----------
    vocab
        Of the pipeline.
    name
        Name of the component in the pipeline.
    model
        The blocks, or what they come from.
    scorer
        For ``nlp.evaluate``.

    Attributes
    ----------
    factory
        Name under which spaCy knows the class.
    cfg
        The live settings, with ``batch_size``, ``device``, ``dtype`` and ``task_lr_ratio`` among them.
    report
        What was left out, with numbers.
    """

    is_trainable = True
    factory: ClassVar[str]
    cfg: Mapping[str, Any]

    def __init__(self, vocab: Vocab, name: str, model: Any, scorer: Callable[..., Any] | None = None) -> None:
        if not is_plain(name) or "/" in name:  # its folder has this name
            found = f"is the name {name!r}, and a component is saved in a folder of its name"
            allowed = "names without slashes, ':', backslashes and control characters, other than '..'"
            raise ConfigError(f"components.{name}", found, allowed, "Give it another name")
        self.vocab = vocab
        self.name = name
        self.model: nn.Module = model
        self.scorer = scorer
        self.report: Counter[str] = Counter()
        self.budget: TokenBudget | None = None
        self._where = f"components.{name}"
        self._rng = random.Random(0)
        self._bridge: ThincBridge | None = None
        self._lock = Lock()

    @property
    @abstractmethod
    def network(self) -> Any:
        """The blocks, loaded if they were only named before."""

    @abstractmethod
    def prepare(self, docs: Sequence[Doc]) -> Any:
        """Return what ``run`` needs of documents, made on the CPU, perhaps in a thread; they are left as they are."""

    @abstractmethod
    def run(self, prepared: Any) -> list[Any]:
        """Return what is found in each of the documents that were prepared."""

    @abstractmethod
    def set_annotations(self, docs: Iterable[Doc], predictions: Iterable[Any]) -> None:
        """Write what was found into the documents."""

    @abstractmethod
    def collate(self, examples: Sequence[Example], rng: random.Random | None = None) -> Any:
        """Make a training batch on the CPU; all chance comes from `rng`."""

    @abstractmethod
    def _current(self) -> dict[str, Any]:
        """The settings as they are now, labels included, as JSON."""

    @abstractmethod
    def _restore(self, values: Mapping[str, Any]) -> None:
        """Take settings that ``_current`` gave."""

    def replace_model(self, model: Any) -> None:
        """Take another model, and forget what was known about the one before."""
        self._move(model)
        self.model = model
        self._bridge = self.budget = None

    def _opened(self, kind: type[nn.Module]) -> Any:
        """Return the model, a `kind`; it is loaded by the first thread that asks, where it was only named."""
        with LOADING:
            if not isinstance(self.model, kind):
                with self.placed():
                    model = cast(Any, self.model).materialize()
                self._move(model)
                self.model = model
        return self.model

    def add_to_report(self, counts: Counter[str]) -> None:
        """Add to what was left out."""
        if counts:
            with self._lock:
                self.report.update(counts)

    def _ready(self) -> Any:
        use_one_thread_after_fork()
        if not self.network.is_built:
            raise NotInitializedError(
                f"The component {self.name!r} has no weights yet. Call nlp.initialize(), train it with "
                "python -m gliner_pipe.train, load a trained pipeline with spacy.load, or name a "
                "checkpoint in its config (model = ...)."
            )
        self._set_precision()
        return self.network

    # -- prediction ----------------------------------------------------------------------------------------

    @property
    def token_budget(self) -> TokenBudget:
        """How many pieces are run at once; it learns from one call to the next."""
        budget = self.budget
        if budget is None:
            budget = self.budget = TokenBudget(self.network.encoder.backbone.max_tokens)
        return budget

    def __call__(self, doc: Doc) -> Doc:
        """Annotate one document."""
        self.set_annotations([doc], self.predict([doc]))
        return doc

    def predict(self, docs: Iterable[Doc]) -> list[Any]:
        """Return what is found in each document, in words, and leave the documents as they are; for
        ``set_annotations``.
        """
        with evaluating(self.network):
            return self.run(self.prepare(list(docs)))

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 64) -> Iterator[Doc]:
        """Annotate a stream of documents, which may have no end, in their order.

        What is run at once is measured in pieces and not in documents, so that `batch_size` changes no score. Windows
        of like length are run together, from as many documents as are read ahead: 16 times `batch_size`, yet at most
        1,024 documents or some 32,000 words.

        Parameters
        ----------
        stream
            Documents.
        batch_size
            With 1 nothing is read ahead: each document comes out before the next is read. The component's own
            ``batch_size``, where it is set, is the number of documents read ahead.

        Notes
        -----
        Where a document cannot be annotated, the error handler (``nlp.set_error_handler``) gets it alone, and the
        others come out.
        """
        own = self.cfg["batch_size"]
        n_docs = own or (1 if batch_size == 1 else min(READ_AHEAD * batch_size, MOST_DOCS))
        # where the model keeps another device busy, a thread cuts the next documents into pieces meanwhile
        in_thread = self.device.type != "cpu" and n_docs > 1
        for docs, prepared in ahead(
            _buffers(stream, n_docs, MOST_WORDS), self._prepared, in_thread=in_thread
        ):
            yield from self._annotated(docs, prepared)

    def _prepared(self, docs: Sequence[Doc]) -> Any:
        """What ``prepare`` gives, or the error that it raised."""
        try:
            return self.prepare(docs)
        except Exception as error:
            return error

    def _annotated(self, docs: list[Doc], prepared: Any) -> Iterator[Doc]:
        """Annotate documents; if that fails the halves of them, until it is known which document was in the way."""
        try:
            if isinstance(prepared, Exception):
                raise prepared
            predictions = self.run(prepared)
        except Exception as error:
            if len(docs) == 1:
                self.get_error_handler()(self.name, self, docs, error)
                return
            half = len(docs) // 2
            for part in (docs[:half], docs[half:]):
                yield from self._annotated(part, self._prepared(part))
            return
        for doc, prediction in zip(docs, predictions, strict=True):
            try:
                self.set_annotations([doc], [prediction])
            except Exception as error:
                self.get_error_handler()(self.name, self, [doc], error)
            else:
                yield doc

    # -- training ------------------------------------------------------------------------------------------

    def denominator(self, count: float) -> float:
        """What the summed loss of a step is divided by."""
        return float(self.network.denominator(count))

    def get_loss(self, examples: Iterable[Example], scores: Batch | None = None) -> LossTerms:
        """Loss of examples, as a sum.

        Parameters
        ----------
        examples
            With gold annotations.
        scores
            The batch that ``collate`` made of them, if it was made already.
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
        """Add the gradients of examples, for ``spacy train``.

        Parameters
        ----------
        examples
            With gold annotations.
        drop
            Not used: dropout is a setting of the blocks.
        sgd
            A thinc optimizer whose learning rate is taken; None or False to collect gradients only.
        losses
            The loss is added under the component's name.
        """
        examples = list(examples)
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        validate_examples(examples, f"{type(self).__name__}.update")
        examples = [example for example in examples if len(example.reference)]
        if not examples:
            return losses
        batch = self.collate(examples)
        self.network.train()
        loss = self.get_loss(examples, batch).total / self.denominator(batch.count)
        loss.backward()
        self.add_to_report(batch.dropped)
        losses[self.name] += float(loss.detach())
        if sgd not in (None, False):
            self.finish_update(sgd)
        return losses

    def finish_update(self, sgd: Any) -> None:
        """Step with the gradients collected; `sgd` gives learning rate, weight decay and clipping."""
        if self._bridge is None:
            self._bridge = ThincBridge(self.network, self.cfg["task_lr_ratio"])
        self._bridge.step(sgd)

    # -- saving: what nlp.config holds is not written again ------------------------------------------------

    def to_disk(self, path: Any, *, exclude: Iterable[str] = ()) -> None:
        """Write weights, backbone configuration, tokenizer, and settings changed at run time."""
        serialize.to_disk(self, util.ensure_path(path), exclude)

    def from_disk(self, path: Any, *, exclude: Iterable[str] = ()) -> Self:
        """Load what ``to_disk`` wrote; no network."""
        with self.placed():
            serialize.from_disk(self, util.ensure_path(path), exclude)
        return self

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """Return what ``to_disk`` writes, as bytes."""
        return serialize.to_bytes(self, exclude)

    def from_bytes(self, data: bytes, *, exclude: Iterable[str] = ()) -> Self:
        """Load what ``to_bytes`` returned."""
        with self.placed():
            serialize.from_bytes(self, data, exclude)
        return self

    # -- device and errors ---------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the model runs: ``"auto"`` is CUDA if there is one, else the CPU."""
        name = self.cfg["device"]
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(name)

    def _move(self, model: torch.nn.Module) -> None:
        try:
            model.to(self.device)
        except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"{self._where}.device",
                f"found {self.cfg['device']!r}, which this machine cannot use ({reason})",
                "auto, cpu, cuda, cuda:0 ..., mps",
                'Take "auto" for CUDA where there is one',
            ) from error

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Put this component's name into the sections that errors of its blocks name."""
        try:
            yield
        except ConfigError as error:
            where = f"components.*.{error.where}" if error.where == "model" else error.where
            if not where.startswith("components.*."):
                raise
            where = where.replace("components.*", self._where, 1)
            raise ConfigError(where, error.found, error.allowed, error.do) from error


def _buffers(stream: Iterable[Doc], n_docs: int, n_words: int) -> Iterator[list[Doc]]:
    """Cut a stream where a buffer holds so many documents or words; the last document may go beyond the words."""
    buffer: list[Doc] = []
    words = 0
    for doc in stream:
        buffer.append(doc)
        words += len(doc)
        if len(buffer) >= n_docs or words >= n_words:
            yield buffer
            buffer, words = [], 0
    if buffer:
        yield buffer
