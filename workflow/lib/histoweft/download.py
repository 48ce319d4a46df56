"""Downloads over https, whole or not at all, and archives unpacked without trusting them."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from histoweft.errors import InputError
from histoweft.io import atomic

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
BLOCK = 1 << 20
MAX_UNPACKED = 200 * 10**9
MAX_RATIO = 300
"""Bytes unpacked for a byte of the archive; tables of counts reach 20, deflate itself 1,032."""

UNSUSPICIOUS = 10**9
"""Bytes unpacked below which the ratio does not matter."""


def url_fault(url: str) -> str:
    """Return what a url should have been, or an empty string: https, or http to this machine (for tests)."""
    parts = urlsplit(url)
    allowed = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    return "" if allowed and parts.hostname and not parts.username else "an https url without user name"


class _SafeRedirect(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never to something that is not https, nor from another machine to this one."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        downgraded = urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https"
        if url_fault(newurl) or downgraded:
            raise InputError.one(req.full_url, f"a redirect to {newurl}", "an https url")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(
    url: str,
    sha256: str | None,
    out: str | Path,
    tries: int = 4,
    wait: float = 2.0,
    timeout: float = 60.0,
    max_bytes: int | None = None,
) -> str:
    """Download a file, check its sha256 and only then give it its name.

    Parameters
    ----------
    url
        https (http to the loopback address only).
    sha256
        Expected digest, 64 hexadecimal digits; None where it is not known yet.
    out
        Where to. Nothing lies there when this fails.
    tries
        Attempts in all; a lost connection, a time-out, status 429 and 5xx are tried again.
    wait
        Seconds before the second attempt; doubled each time.
    timeout
        Seconds without an answer after which an attempt is given up.
    max_bytes
        Largest file that is accepted.

    Returns
    -------
    str
        The sha256 of what was downloaded.

    Raises
    ------
    InputError
        The url is refused, cannot be downloaded, or is another file than was expected.
    """
    out = Path(out)
    if fault := url_fault(url):
        raise InputError.one("url", url, fault)
    problem = ""
    for attempt in range(tries):
        if attempt:
            pause = wait * 2 ** (attempt - 1)
            log.warning("%s: %s; attempt %d of %d in %.0f s", url, problem, attempt + 1, tries, pause)
            time.sleep(pause)
        try:
            with atomic(out) as partial:
                digest, size = _stream(url, partial, timeout, max_bytes)
                if sha256 is not None and digest != sha256.lower():
                    raise InputError.one(
                        url,
                        f"sha256 {digest} ({size} bytes)",
                        f"sha256 {sha256.lower()}",
                        "The file has changed since it was registered, or a login or error page came instead. "
                        "Look at it before changing the registry.",
                    )
            log.info("%s: %d bytes, sha256 %s", url, size, "as registered" if sha256 is not None else digest)
            return digest
        except urllib.error.HTTPError as error:
            problem = f"HTTP status {error.code} ({error.reason})"
            if error.code != 429 and error.code < 500:
                break
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            problem = str(getattr(error, "reason", "") or error or type(error).__name__)
    raise InputError.one(
        url, problem, "the file", "Check the address and the network, or download it by hand and give its path."
    )


def _stream(url: str, path: Path, timeout: float, max_bytes: int | None) -> tuple[str, int]:
    """Write a url's content to a file; return its sha256 and size."""
    opener = urllib.request.build_opener(_SafeRedirect)
    request = urllib.request.Request(url, headers={"User-Agent": "histoweft"})
    digest, size = hashlib.sha256(), 0
    with opener.open(request, timeout=timeout) as reply, open(path, "wb") as handle:
        announced = reply.headers.get("Content-Length")
        while block := reply.read(BLOCK):
            digest.update(block)
            handle.write(block)
            size += len(block)
            if max_bytes is not None and size > max_bytes:
                raise InputError.one(url, f"more than {max_bytes} bytes", "a smaller file", "Is it the right address?")
    if announced is not None and announced.isdigit() and size != int(announced):
        raise ConnectionError(f"the connection broke after {size} of {announced} bytes")
    return digest.hexdigest(), size


def extract(archive: str | Path, folder: str | Path) -> list[Path]:
    """Unpack a .zip, .tar, .tar.gz or .tgz into a new folder that appears only when complete.

    Members that would land outside the folder, links and special files are refused.

    Returns
    -------
    list of Path
        The files unpacked.

    Raises
    ------
    InputError
        Not an archive, cut short, or with members that are refused.
    """
    archive, folder = Path(archive), Path(folder)
    name = archive.name.lower()
    try:
        with atomic(folder) as partial:
            partial.mkdir()
            if name.endswith(".zip"):
                _unzip(archive, partial)
            elif name.endswith((".tar", ".tar.gz", ".tgz")):
                _untar(archive, partial)
            else:
                raise InputError.one(archive, archive.name, "a .zip, .tar, .tar.gz or .tgz")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        hint = "Download it again." if archive.exists() else ""
        raise InputError.one(
            archive, f"an archive that cannot be unpacked ({error})", "a complete archive", hint
        ) from error
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _target(archive: Path, folder: Path, member: str) -> Path:
    """Return where a member goes, or raise when that is outside the folder."""
    parts = PurePosixPath(member.replace("\\", "/"))
    inside = os.path.normpath(os.path.join(folder, *parts.parts))
    drive = bool(parts.parts) and ":" in parts.parts[0]
    if parts.is_absolute() or ".." in parts.parts or drive or not Path(inside).is_relative_to(folder):
        raise InputError.one(
            archive, f"a member {member!r}", "members inside the archive's own folder", "Do not unpack it."
        )
    return Path(inside)


def _check_size(archive: Path, total: int) -> None:
    if total > MAX_UNPACKED:
        raise InputError.one(archive, f"{total} bytes unpacked", f"at most {MAX_UNPACKED} bytes")
    size = archive.stat().st_size
    if total > max(UNSUSPICIOUS, MAX_RATIO * size):
        hint = "It looks like an archive made to fill a disk; unpack it by hand if you trust it."
        raise InputError.one(archive, f"{total} bytes unpacked from {size}", f"at most {MAX_RATIO} times", hint)


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as handle:
        members = handle.infolist()
        _check_size(archive, sum(m.file_size for m in members))
        targets = [(m, _target(archive, folder, m.filename)) for m in members]  # all before the first is written
        for member, target in targets:
            if (member.external_attr >> 16) & 0o170000 == 0o120000:
                raise InputError.one(archive, f"a link {member.filename!r}", "files and folders only")
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with handle.open(member) as source, open(target, "wb") as out:
                shutil.copyfileobj(source, out)


def _untar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive, "r:*") as handle:
        members = handle.getmembers()
        _check_size(archive, sum(m.size for m in members))
        targets = [(m, _target(archive, folder, m.name)) for m in members]
        for member, target in targets:
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            elif member.isfile():
                target.parent.mkdir(parents=True, exist_ok=True)
                with handle.extractfile(member) as source, open(target, "wb") as out:
                    shutil.copyfileobj(source, out)
            else:
                raise InputError.one(archive, f"a link or special file {member.name!r}", "files and folders only")


def sha256(path: str | Path) -> str:
    """Return the sha256 of a file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
