"""A folder of the Hugging Face hub, pinned to a commit: hub:OWNER/NAME@COMMIT -> a folder on this machine.

A branch or a tag can move, and with it what a robot does; so one is looked up, and refused with the commit
that it stands for now. Only JSON and safetensors are downloaded: what could run when it is read stays there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vla.contract import TaktError

START = "hub:"
PLACE = re.compile(r"hub:(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?")
COMMIT = re.compile(r"[0-9a-f]{40}")
WANTED = ("*.json", "*.safetensors")
TIMEOUT = 10.0  # s, for the hub's first answer
# Of a training that goes on: gigabytes that no policy needs.
NEVER = ("checkpoints/*", "*training_state/*", "*optimizer*")


def named(place: str) -> tuple[str, str]:
    """Repository and commit of a place.

    Raises:
        TaktError: it is malformed.
    """
    found = PLACE.fullmatch(place)
    if found is None:
        raise TaktError(f"{place!r} is no place on the hub: hub:OWNER/NAME@COMMIT is wanted")
    return found["repository"], found["revision"] or ""


def title(place: str) -> str:
    """What a policy of that place is called: OWNER/NAME@ and the first eight digits of the commit."""
    repository, commit = named(place)
    return f"{repository}@{commit[:8]}"


def fetched(place: str, wanted: tuple[str, ...] = WANTED) -> Path:
    """Where the files of a place are, once they are there.

    Args:
        wanted: patterns of the files' names.

    Raises:
        TaktError: it is not pinned to a commit, does not exist, or is out of reach and was not downloaded
            before; one line.
    """
    repository, commit = named(place)
    try:
        import huggingface_hub
    except ImportError:
        raise TaktError(f"{place} needs huggingface_hub: pip install 'takt-vla[hub]'") from None
    if COMMIT.fullmatch(commit) is None:
        _refuse(huggingface_hub, repository, commit)
    options = {"revision": commit, "allow_patterns": list(wanted), "ignore_patterns": list(NEVER)}
    try:
        return _downloaded(huggingface_hub, repository, options)
    except Exception as error:  # the library's own, its HTTP client's, the disk's
        raise TaktError(f"{place} was not downloaded before and cannot be now: {_why(error)}") from None


def _downloaded(library: Any, repository: str, options: dict[str, Any]) -> Path:
    """The snapshot, as far as the hub answers; else the one that is kept of before, if there is one.

    One question goes first, without the library's retries: they would keep a robot without a network waiting.
    """
    try:
        library.HfApi().model_info(repository, revision=options["revision"], timeout=TIMEOUT)
    except Exception as error:
        try:
            return Path(library.snapshot_download(repository, **options, local_files_only=True))
        except Exception:
            raise error from None
    return Path(library.snapshot_download(repository, **options))


def _refuse(library: Any, repository: str, revision: str) -> None:
    """Say what to write instead of a branch, a tag or nothing.

    Raises:
        TaktError: always.
    """
    what = f"{START}{repository}@{revision}" if revision else f"{START}{repository}"
    why = f"{what} is not pinned to a commit and may be another policy tomorrow"
    try:
        now = library.HfApi().model_info(repository, revision=revision or None, timeout=TIMEOUT).sha
    except Exception as error:
        raise TaktError(f"{why}: write @ and 40 hex digits ({_why(error)})") from None
    raise TaktError(f"{why}: today it is {START}{repository}@{now}")


def _why(error: Exception) -> str:
    """What the library says about a failure, on one line."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "GatedRepoError" in kinds:
        return "its owner wants to be asked for access, see its page; then set HF_TOKEN"
    if "RevisionNotFoundError" in kinds:
        return "there is no such commit"
    if "RepositoryNotFoundError" in kinds:
        return "there is no such repository, or it is private and wants HF_TOKEN"
    if "LocalEntryNotFoundError" in kinds or "ConnectError" in kinds or "ConnectionError" in kinds:
        return "the hub cannot be reached"
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
