"""Word splitters of single languages, from libraries that are imported on first use; GLiNER has the same ones."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

from spacy.tokens import Doc

from gliner_pipe.errors import ConfigError, reason_of
from gliner_pipe.modeling.layers.cache import Cache
from gliner_pipe.pipeline.word_splitters import SpacyWords, Words, WordSplitter
from gliner_pipe.registry import registry
from gliner_pipe.util import optional
from gliner_pipe.util.thread_lock import Lock

logger = logging.getLogger(__name__)

WHERE = "components.*.word_splitter"


class LibraryWords(WordSplitter):
    """Base of splitters that need an optional package.

    The library is loaded when the first document is split, and never saved or copied with the block. One thread at a
    time uses it. The component's ``alignment_mode`` decides on entities that do not align with token boundaries.
    """

    #: Registered name of the block, which is also the extra that installs its packages.
    name: str

    def __init__(self) -> None:
        super().__init__()
        self._loaded: Cache[str, Any] = Cache()
        self._lock = Lock()

    def _library(self, module: str) -> Any:
        """Return a module of the extra.

        Raises
        ------
        ConfigError
            If its package is not installed.
        """
        return optional.library(module, WHERE, self.name, f"@word_splitters = {self.name}")


class ListedWords(LibraryWords):
    """Base of splitters whose library returns words without their places."""

    @abstractmethod
    def _load(self) -> Callable[[str], Iterable[str]]:
        """Return the function of the library that splits a text."""

    def split(self, doc: Doc) -> Words:
        """Return the words with their character offsets."""
        with self._lock:
            words = list(self._loaded.get("split", self._load)(doc.text))
        return located(doc.text, words)


def located(text: str, words: Iterable[str]) -> Words:
    """Return words with their places in a text, each searched for after the one before it.

    A word that does not occur there, as the library has normalized it, takes no room: no entity can start or end in it.
    """
    texts, offsets, last = [], [], 0
    for word in words:
        start = text.find(word, last)
        place = (last, last) if start < 0 else (start, start + len(word))
        texts.append(word)
        offsets.append(place)
        last = place[1]
    return Words(texts, offsets)


@registry.word_splitters.register("jieba")
class JiebaWords(ListedWords):
    """Chinese words, from `jieba3`."""

    name = "jieba"

    def _load(self) -> Callable[[str], Iterable[str]]:
        cut: Callable[[str], Iterable[str]] = self._library("jieba3").jieba3().cut_text
        return cut


@registry.word_splitters.register("hanlp")
class HanLPWords(ListedWords):
    """Chinese words, from a neural tokenizer of `hanlp` (``FINE_ELECTRA_SMALL_ZH``).

    HanLP downloads it on first use, into the folder of its environment variable ``HANLP_HOME``.
    """

    name = "hanlp"

    def _load(self) -> Callable[[str], Iterable[str]]:
        pretrained = self._library("hanlp.pretrained").tok.FINE_ELECTRA_SMALL_ZH
        cut: Callable[[str], Iterable[str]] = self._library("hanlp").load(pretrained)
        return lambda text: cut(text) if text else []


@registry.word_splitters.register("janome")
class JanomeWords(ListedWords):
    """Japanese words, from `janome`."""

    name = "janome"

    def _load(self) -> Callable[[str], Iterable[str]]:
        tokenizer = self._library("janome.tokenizer").Tokenizer(wakati=True)
        cut: Callable[[str], Iterable[str]] = tokenizer.tokenize
        return cut


@registry.word_splitters.register("mecab")
class MecabWords(ListedWords):
    """Korean morphemes, from `python-mecab-ko`."""

    name = "mecab"

    def _load(self) -> Callable[[str], Iterable[str]]:
        cut: Callable[[str], Iterable[str]] = self._library("mecab").MeCab().morphs
        return cut


@registry.word_splitters.register("camel")
class CamelWords(ListedWords):
    """Arabic words, from `camel-tools`."""

    name = "camel"

    def _load(self) -> Callable[[str], Iterable[str]]:
        cut: Callable[[str], Iterable[str]] = self._library(
            "camel_tools.tokenizers.word"
        ).simple_word_tokenize
        return cut


@registry.word_splitters.register("hindi")
class HindiWords(ListedWords):
    """Hindi words, from `indic-nlp-library`.

    As in GLiNER, words are left out that the library makes of several: the number in ``3 , 4``.
    """

    name = "hindi"

    def _load(self) -> Callable[[str], Iterable[str]]:
        tokenize = self._library("indicnlp.tokenize.indic_tokenize").trivial_tokenize
        return lambda text: tokenize(text, lang="hi")

    def split(self, doc: Doc) -> Words:
        """Return the words with their character offsets."""
        words = super().split(doc)
        assert words.offsets is not None
        found = [
            (word, place)
            for word, place in zip(words.texts, words.offsets, strict=True)
            if not word or place[0] < place[1]
        ]
        return Words([word for word, _ in found], [place for _, place in found])


class DetectingWords(LibraryWords):
    """Base of splitters that choose by the language of a text, detected by `langdetect`."""

    #: Seed of the detection, which samples n-grams.
    seed: int

    def _language(self, text: str) -> str | None:
        """Return the code of the language of a text; None for a text without letters."""
        factory = self._loaded.get("detector", self._make_detector)
        detector = factory.create()
        try:
            detector.append(text)
            language: str = detector.detect()
        except self._library("langdetect").LangDetectException:
            return None
        return language

    def _make_detector(self) -> Any:
        library = self._library("langdetect.detector_factory")
        factory = library.DetectorFactory()
        factory.set_seed(self.seed)  # not the seed of the class, which all users in this process share
        factory.load_profile(library.PROFILES_DIRECTORY)
        return factory


@registry.word_splitters.register("universal")
class UniversalWords(DetectingWords):
    """Words by the detected language of a text.

    ``jieba`` for Chinese, ``janome`` for Japanese, ``mecab`` for Korean, ``hindi`` for Hindi and ``camel`` for Arabic;
    for other languages the multi-language rules of spaCy. A package is needed once a text is in its language.
    """

    name = "universal"
    seed = 0

    def __init__(self) -> None:
        super().__init__()
        chinese = JiebaWords()
        self._splitters: dict[str | None, WordSplitter] = {
            **dict.fromkeys(("zh-cn", "zh-tw"), chinese),
            "ja": JanomeWords(),
            "ko": MecabWords(),
            "hi": HindiWords(),
            "ar": CamelWords(),
        }
        self._other = SpacyWords(language="xx")

    def split(self, doc: Doc) -> Words:
        """Return the words of the splitter of the language of the text."""
        with self._lock:
            language = self._language(doc.text)
        return self._splitters.get(language, self._other).split(doc)


@registry.word_splitters.register("stanza")
class StanzaWords(DetectingWords):
    """Words of the `stanza` model of the detected language; of the English model where there is none.

    Stanza downloads the model of a language on first use, into the folder of its environment variable
    ``STANZA_RESOURCES_DIR``. A token of several words, such as the French *du* (*de*, *le*), gives all of them its
    place where they are no parts of it.
    """

    name = "stanza"
    seed = 42
    _default = "en"

    def split(self, doc: Doc) -> Words:
        """Return the words with their character offsets."""
        with self._lock:
            language = self._language(doc.text) or self._default
            read = self._pipeline("zh" if language == "zh-cn" else language)(doc.text)
        found = [
            (word, token if word.start_char is None else word)
            for sentence in read.sentences
            for token in sentence.tokens
            for word in token.words
        ]
        return Words(
            [word.text for word, _ in found], [(place.start_char, place.end_char) for _, place in found]
        )

    def _pipeline(self, language: str) -> Any:
        """Return the pipeline of a language, or that of the default language.

        Raises
        ------
        ConfigError
            If neither is there, nor can be downloaded.
        """
        loaded = self._loaded.get(language, lambda: self._load_pipeline(language))
        if loaded is MISSING and language != self._default:
            loaded = self._loaded.get(self._default, lambda: self._load_pipeline(self._default))
        if loaded is MISSING:
            raise ConfigError(
                WHERE,
                f"@word_splitters = {self.name} has no model of the language {language!r} or {self._default!r}, and "
                "cannot download one",
                do="Download it where there is a network: "
                f"python -c \"import stanza; stanza.download('{language}', processors='tokenize')\"",
            )
        return loaded

    def _load_pipeline(self, language: str) -> Any:
        stanza = self._library("stanza")
        options: dict[str, Any] = {"processors": "tokenize", "verbose": False}
        try:
            return stanza.Pipeline(language, download_method=None, **options)
        except Exception:  # stanza raises errors of many kinds where a model is missing
            logger.info("Downloading the stanza tokenizer of the language %r", language)
        try:
            stanza.download(language, **options)
            return stanza.Pipeline(language, download_method=None, **options)
        except Exception as error:
            reason = reason_of(error, 200)
            logger.warning(
                "No stanza tokenizer of the language %r (%s): its texts are split as %r.",
                language,
                reason,
                self._default,
            )
            return MISSING


#: In place of the pipeline of a language that has none.
MISSING = object()
