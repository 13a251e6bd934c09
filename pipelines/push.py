"""A finished token corpus goes to the Hub, as a data set repository.

    files of the corpus, in as many commits as the Hub's client makes of them
    README.md, manifest.json, _SUCCESS, in one last commit

The last commit holds them as they were when the push began; of a delta that was not finished then
nothing is sent. A repository without ``_SUCCESS`` is thus as unfinished as a folder without it, and
the same command goes on: files that the Hub has already are not sent again.
"""
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenizer import audit, storage, stores, tokens
from tokenizer.card import shard_patterns
from tokenizer.deltas import delta_folder
from tokenizer.schema import Manifest
from tokenizer.tokens import TokenCorpus

if TYPE_CHECKING:
    from huggingface_hub import HfApi

FOLDERS = (tokens.PLAN, tokens.RECEIPTS, tokens.DEAD)
"""Folders of a corpus beside those of its shards and deltas; whatever else lies there stays."""

LAST = (tokens.CARD, tokens.MANIFEST, tokens.SUCCESS)
"""Files of the last commit."""

OF_THE_HUB = (".gitattributes",)


@dataclass(frozen=True, kw_only=True)
class PushConfig:
    """What to push, and where.

    Attributes:
        tokens: folder of a completed token corpus on this machine.
        repo: ``USER/NAME`` of the data set.
        private: whether a repository that is made is.
        overwrite: remove what else the repository holds.
        endpoint: URL of the Hub; nothing for the one that the Hub's client is set to.
    """
    tokens: str
    repo: str
    private: bool = False
    overwrite: bool = False
    endpoint: str | None = None

    def __post_init__(self) -> None:
        if self.repo.count("/") != 1 or not all(self.repo.split("/")):
            raise ValueError(f"a repository is USER/NAME, got {self.repo!r}")

    @property
    def url(self) -> str:
        """The repository as fsspec and `datasets` name it."""
        return f"hf://datasets/{self.repo}"


def push_corpus(config: PushConfig) -> str:
    """Upload a corpus; returns the URL of the last commit.

    Raises:
        OSError: the corpus is not there or not finished, or the Hub cannot be reached or refuses.
        ValueError: the corpus is damaged, or the repository holds something else.
    """
    corpus = TokenCorpus.open(config.tokens)
    require_sound(corpus)
    last, patterns = last_files(corpus), patterns_of(corpus.manifest)
    with stores.remote_errors(config.url):
        from huggingface_hub import HfApi
        api = HfApi(endpoint=config.endpoint, library_name="img2tokens")
        api.create_repo(config.repo, repo_type="dataset", private=config.private, exist_ok=True)
        there = api.list_repo_files(config.repo, repo_type="dataset")
    surplus = [name for name in there if not belongs(name, config.tokens, patterns)]
    if surplus and not config.overwrite:
        raise ValueError(f"{config.url} holds other files, such as {surplus[0]}: choose another "
                         "repository, or remove them with --overwrite")
    with stores.remote_errors(config.url):
        remove(api, config.repo, [*surplus, *(name for name in there if name == tokens.SUCCESS)])
        return upload(api, config, patterns, last)


def require_sound(corpus: TokenCorpus) -> None:
    """Refuse a corpus that cannot or must not be uploaded.

    Raises:
        ValueError: it lies on an object store, or its files are not what its manifest says.
    """
    if not stores.is_local(corpus.url):
        raise ValueError(f"{corpus.url} is no folder of this machine; copy it to one and push that")
    problems = [problem for problem in audit.verify(corpus) if problem]
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise ValueError(f"{corpus.url} is damaged: {problems[0]}{more}; `img2tokens inspect "
                         f"{corpus.url} --verify` lists all; nothing was uploaded")


def last_files(corpus: TokenCorpus) -> dict[str, bytes]:
    """The files that complete a corpus, as they are now.

    Raises:
        ValueError: they are no longer those of this corpus.
    """
    found = {name: storage.read_bytes(storage.join(corpus.url, name)) for name in LAST}
    if Manifest.from_json(found[tokens.MANIFEST], tokens.MANIFEST) != corpus.manifest:
        raise ValueError(f"{corpus.url} changed while it was checked; run the same command again")
    return found


def patterns_of(manifest: Manifest) -> list[str]:
    """Which files of a corpus are uploaded before those; none of a delta in the making."""
    folders = [*FOLDERS, *(delta_folder(number) for number in range(1, 1 + len(manifest.deltas)))]
    return [*shard_patterns(manifest, tokens.DATA), *(f"{folder}/*" for folder in folders)]


def belongs(name: str, corpus: str, patterns: Sequence[str]) -> bool:
    """Whether a file of a repository is one of the Hub's, or has the place of one of the corpus."""
    is_ours = name in LAST or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    return name in OF_THE_HUB or (is_ours and storage.exists(storage.join(corpus, name)))


def remove(api: "HfApi", repo: str, names: Sequence[str]) -> None:
    """Remove files of a repository in one commit, so that it counts as unfinished meanwhile."""
    from huggingface_hub import CommitOperationDelete
    if names:
        api.create_commit(repo, [CommitOperationDelete(name) for name in names],
                          commit_message="Begin anew", repo_type="dataset")


def upload(api: "HfApi", config: PushConfig, patterns: Sequence[str],
           last: Mapping[str, bytes]) -> str:
    """Upload the files of a corpus, those that complete it last; returns the last commit's URL."""
    from huggingface_hub import CommitOperationAdd
    folder = stores.locate(config.tokens)[1]  # of a path or a URL
    api.upload_folder(repo_id=config.repo, folder_path=folder, repo_type="dataset",
                      commit_message="Shards", allow_patterns=list(patterns),
                      ignore_patterns=[f"*{storage.TEMPORARY_MARK}*"])
    completing = [CommitOperationAdd(name, content) for name, content in last.items()]
    done = api.create_commit(config.repo, completing, commit_message="Complete",
                             repo_type="dataset")
    return str(done.commit_url)
