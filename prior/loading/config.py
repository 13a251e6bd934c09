"""How a training reads its corpora: settings, and what they are."""
import math
from collections.abc import Sequence
from dataclasses import dataclass

from prior.dataset import require_codes
from tokenizer import configs, storage
from tokenizer.filters import RowFilter
from tokenizer.one_bucket import one_bucket
from tokenizer.tokens import TokenCorpus

ORDERS = ("auto", "exact", "windowed")
CROPS = ("all", "one")
GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """In which order training goes through its rows.

    Attributes:
        order: ``exact`` shuffles all rows, whose codes are mapped from a cache; ``windowed`` reads
            shards in shuffled order and shuffles the rows of a window; ``auto`` is exact for a
            corpus whose codes take at most ``exact_gib``.
        exact_gib: GiB of codes that are taken to fit in memory.
        window_rows: rows shuffled together in windowed order; memory holds about twice as many.
        crops: ``all`` rows are an epoch, or ``one`` of the crops of each image, in every epoch
            another one.
    """
    order: str = "auto"
    exact_gib: float = 16.0
    window_rows: int = 1 << 17
    crops: str = "all"

    def __post_init__(self) -> None:
        for name, known in (("order", ORDERS), ("crops", CROPS)):
            if getattr(self, name) not in known:
                raise ValueError(f"training.loader.{name} is one of {', '.join(known)}, "
                                 f"got {getattr(self, name)!r}")
        if not self.exact_gib >= 0:
            raise ValueError(f"training.loader.exact_gib must be at least 0, got {self.exact_gib}")
        if self.window_rows < 1:
            raise ValueError(f"training.loader.window_rows must be at least 1, "
                             f"got {self.window_rows}")

    def is_exact(self, num_bytes: int) -> bool:
        """Whether rows whose codes take so many bytes are put into exact order."""
        return self.order == "exact" or (self.order == "auto"
                                         and num_bytes <= self.exact_gib * GIB)


@dataclass(frozen=True, kw_only=True)
class Share:
    """A corpus of a mixture.

    Attributes:
        corpus: its fingerprint.
        weight: how often rows are taken from it, beside the weights of the others.
    """
    corpus: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ValueError("the weight of a corpus must be a finite number more than 0, "
                             f"got {self.weight}")


@dataclass(frozen=True)
class Mixture:
    """Token corpora that are trained on together; one alone is the simplest.

    Attributes:
        corpora: at least one; their codes mean the same.
        weights: one for each.
    """
    corpora: tuple[TokenCorpus, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.corpora or len(self.corpora) != len(self.weights):
            raise ValueError(f"a mixture takes a weight for each corpus, got {len(self.corpora)} "
                             f"corpora and {len(self.weights)} weights")
        for weight in self.weights:
            Share(corpus="", weight=weight)  # refuses what is no weight
        fingerprints = [corpus.manifest.fingerprint for corpus in self.corpora]
        for corpus, fingerprint in zip(self.corpora, fingerprints, strict=True):
            if fingerprints.count(fingerprint) > 1:
                raise ValueError(f"{corpus.url} is given twice, or as a copy: give it once, with "
                                 "the sum of its weights")

    @property
    def first(self) -> TokenCorpus:
        """The first corpus, whose spec and classes are those of all."""
        return self.corpora[0]

    @property
    def shares(self) -> tuple[Share, ...]:
        """Fingerprints and weights; nothing for one corpus alone."""
        if len(self.corpora) == 1:
            return ()
        return tuple(Share(corpus=corpus.manifest.fingerprint, weight=weight)
                     for corpus, weight in zip(self.corpora, self.weights, strict=True))

    @property
    def fingerprint(self) -> str:
        """That of the only corpus, or a hash over those of all and their weights."""
        if not self.shares:
            return self.first.manifest.fingerprint
        text = configs.canonical_json([configs.to_dict(share) for share in self.shares])
        return f"sha256:{storage.sha256(text.encode())}"

    def require_filter(self, text: str) -> None:
        """Refuse a filter that does not fit the rows of all corpora.

        Raises:
            ValueError: it cannot be read, or names a column that one of them does not have.
        """
        for corpus in self.corpora:
            try:
                RowFilter.parse(text, corpus.manifest.spec.arrow_schema())
            except ValueError as error:
                if not self.shares:
                    raise
                raise ValueError(f"{corpus.url}: {error}") from error

    def of_one_grid(self, row_filter: str | None) -> "Mixture":
        """The same, of corpora with buckets only the one whose rows the filter takes.

        Raises:
            ValueError: it takes rows of several buckets; see `tokenizer.one_bucket`.
        """
        corpora = tuple(one_bucket(corpus, row_filter) for corpus in self.corpora)
        return Mixture(corpora, self.weights)

    def require_labels(self) -> None:
        """Refuse corpora of which a row has no label, by what their manifests count.

        Raises:
            ValueError: names the corpus and how many such rows it has.
        """
        for corpus in self.corpora:
            manifest = corpus.manifest
            missing = manifest.num_rows - sum(manifest.class_counts.values())
            if manifest.class_counts and missing:  # early manifests do not count
                raise ValueError(f"{missing} of {manifest.num_rows} rows of {corpus.url} have no "
                                 "label, and these sequences have no code for that: leave such "
                                 "rows out with --filter 'label is not null'")

    def require_alike(self, modalities: Sequence[str], labelled: bool) -> None:
        """Refuse corpora whose codes do not mean the same.

        Args:
            modalities: that training uses; which crops the rows are may differ.
            labelled: whether it uses labels, so that classes must be the same too.
        Raises:
            SpecMismatch, ValueError: names the corpus and what differs.
        """
        first = self.first
        for corpus in self.corpora[1:]:
            require_codes(first.spec, corpus.spec, modalities, corpus.url)
            if labelled and corpus.manifest.classes != first.manifest.classes:
                raise ValueError(f"{corpus.url} has other classes than {first.url}, so a label "
                                 "would not mean the same: leave this condition out")
