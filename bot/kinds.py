"""What kind of file something is, by its content and its name; what it claims to be counts for nothing. Pure.

A `Look` is fed with the content piece by piece and keeps its beginning and its end alone, so that a large file takes
no more memory than a small one. What is not recognised is no kind at all.
"""

import io
import re
import unicodedata
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass

import puremagic

from supervision.models import FileKind

HEAD, TAIL = 64 * 1024, 1024 * 1024  # bytes; the directory of a zip stands at its end
LONGEST_NAME = 255  # characters, as most file systems have it
UNSAFE_NAME = re.compile(r"[/\\\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]|^\.|[. ]$|^$")

# What a double-click runs, or what runs scripts when it is opened.
PROGRAMS = frozenset(
    "ade adp air apk app appimage application appref-ms appx appxbundle asp aspx bas bash bat btm cgi chm"
    " class cmd com command cpl csh deb desktop dll dmg docm dotm drv elf exe flatpak flatpakref fish"
    " gadget hlp hta htm html img inf ins ipa iso isp jar jnlp js jse jsp ksh lib lnk mad maf mam maq mar"
    " mas mda mdb mde mdt mdw mdz mht mhtml mjs msc msi msix msixbundle msp mst ocx ops out pcd php pif"
    " pkg pl potm ppam ppsm pptm prg ps1 ps1xml ps2 psc1 psd1 psm1 py pyc pyo pyw pyz rb reg rpm run scf"
    " scr sct settingcontent-ms sh shb shs shtml sldm slk snap svg svgz swf sys tcl url vb vbe vbs"
    " vbscript vhd vhdx vsto wasm webloc website ws wsc wsf wsh xap xapk xbap xht xhtml xlam xll xlm xlsb"
    " xlsm xltm xpi xsl xslt zsh".split()
)
# Of these also where another ending follows, and within archives. Words that are domains too are none of them.
HIDDEN = frozenset(
    "apk bat cmd cpl dll exe hta jar jse lnk msi msix pif ps1 psm1 reg scf scr vbe vbs wsf wsh xll".split()
)
KINDS_OF_ENDINGS: dict[str, frozenset[FileKind]] = {
    **dict.fromkeys(
        "avif bmp gif heic heif ico jfif jpe jpeg jpg jxl png tif tiff webp".split(), frozenset({FileKind.IMAGE})
    ),
    **dict.fromkeys("aac amr flac m4a m4b mp3 oga opus spx wav".split(), frozenset({FileKind.AUDIO})),
    **dict.fromkeys(
        "3ga 3gp 3gpp avi m4v mkv mov mp4 mpeg mpg ogg ogv webm wmv".split(),
        frozenset({FileKind.VIDEO, FileKind.AUDIO}),
    ),
    "pdf": frozenset({FileKind.PDF}),
    **dict.fromkeys(
        "doc docx dot dotx epub key numbers odg odp ods odt pages pot potx pps ppsx ppt pptx rtf"
        " xls xlsx xlt xltx".split(),
        frozenset({FileKind.DOCUMENT}),
    ),
    **dict.fromkeys("csv ics json log md srt tex text tsv txt vcf vtt".split(), frozenset({FileKind.TEXT})),
    **dict.fromkeys("7z bz2 gz rar tar tgz xz zip zst".split(), frozenset({FileKind.ARCHIVE})),
}

OFFICE = {
    "word/": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xl/": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "ppt/": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
}
# Names of streams in compound files ([MS-CFB]), which are UTF-16: what makes one a document of which program.
OLD_OFFICE = {
    "WordDocument".encode("utf-16-le"): "application/msword",
    "Workbook".encode("utf-16-le"): "application/vnd.ms-excel",
    "PowerPoint Document".encode("utf-16-le"): "application/vnd.ms-powerpoint",
    "EncryptedPackage".encode("utf-16-le"): "application/vnd.ms-office",
}
OLD_MACROS = "_VBA_PROJECT".encode("utf-16-le")
COMPOUND, ZIP = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"PK\x03\x04"
RUNS = (
    b"MZ",
    b"\x7fELF",
    b"\xca\xfe\xba\xbe",
    b"\xcf\xfa\xed\xfe",
    b"\xce\xfa\xed\xfe",
    b"\xfe\xed\xfa\xcf",
    b"\xfe\xed\xfa\xce",
    b"\x00asm",
    b"dex\n",
    b"L\x00\x00\x00\x01\x14\x02\x00",
    b"FWS",
    b"CWS",
    b"ZWS",
    b"!<arch>",
    b"\xed\xab\xee\xdb",
)
PUREMAGIC: dict[str, tuple[str, FileKind]] = {  # its word for a type -> ours, where the two differ
    "image/x-ms-bmp": ("image/bmp", FileKind.IMAGE),
    "audio/wave": ("audio/wav", FileKind.AUDIO),
    "audio/x-wav": ("audio/wav", FileKind.AUDIO),
    "video/avi": ("video/x-msvideo", FileKind.VIDEO),
    "application/rtf": ("application/rtf", FileKind.DOCUMENT),
    "application/vnd.rar": ("application/vnd.rar", FileKind.ARCHIVE),
    "application/x-7z-compressed": ("application/x-7z-compressed", FileKind.ARCHIVE),
    "application/x-gzip": ("application/gzip", FileKind.ARCHIVE),
    "application/x-bzip2": ("application/x-bzip2", FileKind.ARCHIVE),
    "application/x-xz": ("application/x-xz", FileKind.ARCHIVE),
    "application/x-tar": ("application/x-tar", FileKind.ARCHIVE),
    **{
        f"{kind}/{name}": (f"{kind}/{name}", kind)
        for kind, names in (
            (FileKind.IMAGE, "png jpeg gif webp heif avif tiff x-icon jxl"),
            (FileKind.AUDIO, "mpeg aac flac"),
            (FileKind.VIDEO, "mpeg x-msvideo"),
        )
        for name in names.split()
    },
}
ACTIVE = re.compile(
    rb"<(?:[a-z]+:)?(?:html|head|body|script|iframe|object|embed|svg)[\s/>]|<!doctype\s+(?:html|svg)"
    rb"|www\.w3\.org/(?:1999/xhtml|2000/svg|1999/xsl)",
    re.IGNORECASE,
)
ACTIVE_TYPES = re.compile(
    r"(?:text/html|image/svg|application/(?:xhtml|x-?javascript|ecmascript|x-msdownload|x-ms-?dos|x-executable"
    r"|x-sh|x-shockwave)|text/(?:javascript|ecmascript|xsl|x-sh|x-python|x-php))"
)
CONTROLS = bytes(range(32)).translate(None, b"\t\n\r\f\x1b") + b"\x7f"  # that no text has
MARKS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


@dataclass(frozen=True)
class Found:
    """What a content is: its MIME type; its kind, None where it is none that can be told; whether it can do things."""

    type: str
    kind: FileKind | None
    runs: bool = False


PROGRAM = Found("application/x-executable", None, runs=True)
MARKUP = Found("text/html", None, runs=True)
UNKNOWN = Found("application/octet-stream", None)
EMPTY = Found("application/x-empty", FileKind.TEXT)


class Look:
    """What was seen of a content: feed it in order, then ask what it is."""

    def __init__(self) -> None:
        self.size = 0
        self._head = bytearray()
        self._tail = bytearray()
        self._controls = False
        self._marks: set[bytes] = set()

    def feed(self, piece: bytes) -> None:
        """The next bytes of the content."""
        if not piece:
            return
        if len(self._head) < HEAD:
            self._head += piece[: HEAD - len(self._head)]
        if self._head.startswith(COMPOUND[: len(self._head)]):
            self._look_for_streams(piece)
        self._tail += piece
        if len(self._tail) > TAIL:
            del self._tail[:-TAIL]
        self.size += len(piece)
        self._controls = self._controls or len(piece.translate(None, CONTROLS)) != len(piece)

    def _look_for_streams(self, piece: bytes) -> None:
        seen = bytes(self._tail[-64:]) + piece
        self._marks.update(mark for mark in (*OLD_OFFICE, OLD_MACROS) if mark in seen)

    def found(self) -> Found:
        """What the content is."""
        head = bytes(self._head)
        if not head:
            return EMPTY
        if head.startswith(RUNS) or (head.startswith(b"#!") and not head.startswith(b"#!AMR")):
            return PROGRAM
        if head.startswith(ZIP) or head.startswith(b"PK\x05\x06"):
            return self._zip(head)
        if head.startswith(COMPOUND):
            return self._compound()
        return self._media(head) or self._by_magic(head) or self._text(head)

    def _zip(self, head: bytes) -> Found:
        """A document, a program, or an archive, by the names in it."""
        names = self._names()
        if names is None:
            return UNKNOWN
        known = set(names)
        if known & {"AndroidManifest.xml", "META-INF/MANIFEST.MF"} or any(_is_hidden_program(name) for name in names):
            return PROGRAM
        if "[Content_Types].xml" in known:
            for folder, kind in OFFICE.items():
                if any(name.startswith(folder) for name in names):
                    return PROGRAM if any(name.endswith("vbaProject.bin") for name in names) else _document(kind)
        declared = re.match(rb"PK\x03\x04.{22}\x08\x00.{2}mimetype(application/[\w.+-]+)", head, re.DOTALL)
        if declared and re.match(rb"application/(?:vnd\.oasis\.opendocument|epub\+zip)", declared[1]):
            return _document(declared[1].removesuffix(b"PK").decode("ascii"))
        if "Index/Document.iwa" in known or "Index.zip" in known:
            return _document("application/vnd.apple.iwork")
        return Found("application/zip", FileKind.ARCHIVE)

    def _names(self) -> list[str] | None:
        """What is in a zip; None where its directory is not at its end, or too large."""
        try:
            with zipfile.ZipFile(_Ending(bytes(self._tail), self.size)) as archive:
                return archive.namelist()
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, OSError):
            return None  # its end, its version, a name in it, or that it begins before what was kept

    def _compound(self) -> Found:
        if OLD_MACROS in self._marks:
            return PROGRAM
        return next((_document(kind) for mark, kind in OLD_OFFICE.items() if mark in self._marks), UNKNOWN)

    def _media(self, head: bytes) -> Found | None:
        """What puremagic cannot tell: whether there are pictures in a container, or sound alone."""
        if head[4:8] == b"ftyp":
            return self._iso_media(head[8:12])
        if head.startswith(b"OggS"):
            moving = b"\x80theora" in head
            return Found("video/ogg", FileKind.VIDEO) if moving else Found("audio/ogg", FileKind.AUDIO)
        if head.startswith(b"\x1aE\xdf\xa3"):
            kind = FileKind.AUDIO if b"A_" in head and b"V_" not in head else FileKind.VIDEO
            return Found(f"{kind}/{'webm' if b'webm' in head[:64] else 'x-matroska'}", kind)
        if head.startswith(b"#!AMR"):
            return Found("audio/amr", FileKind.AUDIO)
        if head.startswith(b"%PDF-"):
            return Found("application/pdf", FileKind.PDF)
        return None

    def _iso_media(self, brand: bytes) -> Found:
        """By its brand (ISO/IEC 14496-12, 4.3), and where that leaves it open by the handlers of its tracks."""
        if brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
            return Found("image/heif", FileKind.IMAGE)
        if brand in (b"avif", b"avis"):
            return Found("image/avif", FileKind.IMAGE)
        ends = bytes(self._head) + bytes(self._tail)
        if brand in (b"M4A ", b"M4B ", b"F4A ") or (b"soun" in ends and b"vide" not in ends):
            return Found("audio/mp4", FileKind.AUDIO)
        return Found("video/quicktime" if brand == b"qt  " else "video/mp4", FileKind.VIDEO)

    def _by_magic(self, head: bytes) -> Found | None:
        """By the first of puremagic's guesses that is of a kind which is known here; text may resemble anything."""
        try:
            guesses = puremagic.magic_string(head)
        except (puremagic.PureError, ValueError):
            return None
        for guess in guesses:
            if guess.mime_type in PUREMAGIC:
                kind = PUREMAGIC[guess.mime_type]
                if kind[0] == "image/x-icon" and not head.startswith(b"\x00\x00\x01\x00"):
                    continue
                return Found(*kind)
        return None

    def _text(self, head: bytes) -> Found:
        coding = MARKS.get(head[:2])
        if coding is not None:
            head = head.decode(coding, "replace").encode()
            if b"\x00" in head:
                return UNKNOWN
        elif self._controls:
            return UNKNOWN
        start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        if start.startswith((b"<", "\ufeff<".encode())) and ACTIVE.search(head):
            return MARKUP
        return Found("text/plain", FileKind.TEXT)


class _Ending(io.RawIOBase):
    """A file of which the last bytes alone are known; whoever reads before them is told that they are not there."""

    def __init__(self, tail: bytes, size: int) -> None:
        super().__init__()
        self._tail = tail
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        start = self._at - (self._size - len(self._tail))
        if start < 0:
            raise OSError("not kept")
        piece = self._tail[start:] if size is None or size < 0 else self._tail[start : start + size]
        self._at += len(piece)
        return piece


def is_unsafe(name: str) -> bool:
    """Whether a file's name leads elsewhere, hides its end, or is none."""
    return len(name) > LONGEST_NAME or UNSAFE_NAME.search(name) is not None


def is_program(name: str, claimed: str = "") -> bool:
    """Whether a name ends as a program's, or hides such an ending before another; or the claimed type is one."""
    return ending(name) in PROGRAMS or _is_hidden_program(name) or bool(ACTIVE_TYPES.match(claimed.strip().lower()))


def contradicts(name: str, kind: FileKind | None) -> bool:
    """Whether a name says that this is another kind of file than it is."""
    kinds = KINDS_OF_ENDINGS.get(ending(name))
    return kinds is not None and kind not in kinds


def ending(name: str) -> str:
    """What stands behind the last dot, in small letters; nothing without one."""
    stem, dot, last = unicodedata.normalize("NFKC", name).rpartition(".")
    return last.strip().lower() if dot and stem else ""


def _is_hidden_program(name: str) -> bool:
    _, *endings = _parts(name.replace("\\", "/").rpartition("/")[2])
    return any(part in HIDDEN for part in endings)


def _parts(name: str) -> Iterable[str]:
    return (part.strip().lower() for part in unicodedata.normalize("NFKC", name).split("."))


def _document(kind: str) -> Found:
    return Found(kind, FileKind.DOCUMENT)
