"""What kind of file something is, by what is in it."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest

from bot.kinds import HEAD, TAIL, Found, Look, contradicts, ending, is_program, is_unsafe
from supervision.models import FileKind

IMAGE, AUDIO, VIDEO, PDF = FileKind.IMAGE, FileKind.AUDIO, FileKind.VIDEO, FileKind.PDF
DOCUMENT, TEXT, ARCHIVE = FileKind.DOCUMENT, FileKind.TEXT, FileKind.ARCHIVE
REST = b"\x00" * 40
COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 504
OPEN_XML = "application/vnd.openxmlformats-officedocument"


def look(content: bytes, piece: int = 64 * 1024) -> Found:
    seen = Look()
    for at in range(0, len(content), piece):
        seen.feed(content[at : at + piece])
    assert seen.size == len(content)
    return seen.found()


def packed(*names: str, content: bytes = b"x") -> bytes:
    """A zip with these names in it."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return made.getvalue()


def open_document(kind: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("mimetype", f"application/{kind}")
        archive.writestr("content.xml", "<x/>")
    return made.getvalue()


def tarred() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    return made.getvalue()


def box(brand: bytes, *handlers: bytes) -> bytes:
    return b"\x00\x00\x00\x18ftyp" + brand + b"\x00" * 16 + b"".join(b"hdlr" + REST + one for one in handlers) + REST


def named(value: object) -> str | None:
    """A content's name in the list of tests: some hold the time at which they were made."""
    return "content" if isinstance(value, bytes) else None


@pytest.mark.parametrize(
    ("content", "type_", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + REST, "image/png", IMAGE),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + REST, "image/jpeg", IMAGE),
        (b"\xff\xd8\xff\xe1\x00\x10Exif\x00" + REST, "image/jpeg", IMAGE),
        (b"GIF89a" + REST, "image/gif", IMAGE),
        (b"RIFF\x20\x00\x00\x00WEBPVP8 " + REST, "image/webp", IMAGE),
        (b"BM\x36\x00\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00\x28\x00\x00\x00" + REST, "image/bmp", IMAGE),
        (b"II*\x00\x08\x00\x00\x00" + REST, "image/tiff", IMAGE),
        (box(b"heic"), "image/heif", IMAGE),
        (box(b"avif"), "image/avif", IMAGE),
        (b"ID3\x03\x00\x00\x00" + REST, "audio/mpeg", AUDIO),
        (b"\xff\xfb\x90\x44" + REST, "audio/mpeg", AUDIO),
        (b"fLaC\x00\x00\x00\x22" + REST, "audio/flac", AUDIO),
        (b"RIFF\x20\x00\x00\x00WAVEfmt " + REST, "audio/wav", AUDIO),
        (b"OggS\x00\x02" + b"\x00" * 22 + b"\x01\x13OpusHead" + REST, "audio/ogg", AUDIO),
        (b"OggS\x00\x02" + b"\x00" * 22 + b"\x01\x2a\x80theora" + REST, "video/ogg", VIDEO),
        (b"\x1aE\xdf\xa3B\x82\x84webm" + REST + b"A_OPUS", "audio/webm", AUDIO),
        (b"\x1aE\xdf\xa3B\x82\x84webm" + REST + b"V_VP9A_OPUS", "video/webm", VIDEO),
        (b"#!AMR\n" + REST, "audio/amr", AUDIO),
        (box(b"M4A "), "audio/mp4", AUDIO),
        (box(b"isom", b"soun"), "audio/mp4", AUDIO),
        (box(b"isom", b"soun", b"vide"), "video/mp4", VIDEO),
        (box(b"qt  "), "video/quicktime", VIDEO),
        (b"RIFF\x20\x00\x00\x00AVI LIST" + REST, "video/x-msvideo", VIDEO),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + REST, "application/pdf", PDF),
        (packed("[Content_Types].xml", "word/document.xml"), f"{OPEN_XML}.wordprocessingml.document", DOCUMENT),
        (packed("[Content_Types].xml", "xl/workbook.xml"), f"{OPEN_XML}.spreadsheetml.sheet", DOCUMENT),
        (packed("[Content_Types].xml", "ppt/presentation.xml"), f"{OPEN_XML}.presentationml.presentation", DOCUMENT),
        (packed("Index/Document.iwa"), "application/vnd.apple.iwork", DOCUMENT),
        (COMPOUND + "WordDocument".encode("utf-16-le"), "application/msword", DOCUMENT),
        (COMPOUND + "EncryptedPackage".encode("utf-16-le"), "application/vnd.ms-office", DOCUMENT),
        (b"{\\rtf1\\ansi hello}", "application/rtf", DOCUMENT),
        ("Olá, mundo.\n".encode(), "text/plain", TEXT),
        ("Olá, mundo.\n".encode("cp1252"), "text/plain", TEXT),
        ("Olá, mundo.\n".encode("utf-16"), "text/plain", TEXT),
        (b'{"a": [1, 2]}', "text/plain", TEXT),
        (b"nome;idade\nAna;40\n", "text/plain", TEXT),
        (b"<note>wrote &lt;html&gt;</note>", "text/plain", TEXT),
        (b"a < b, and <b>so</b> on", "text/plain", TEXT),
        (b"BEGIN:VCARD\r\nEND:VCARD\r\n", "text/plain", TEXT),
        (b"", "application/x-empty", TEXT),
        (packed("notes.txt", "photo.jpg"), "application/zip", ARCHIVE),
        (gzip.compress(b"x"), "application/gzip", ARCHIVE),
        (bz2.compress(b"x"), "application/x-bzip2", ARCHIVE),
        (lzma.compress(b"x"), "application/x-xz", ARCHIVE),
        (b"7z\xbc\xaf'\x1c\x00\x04" + REST, "application/x-7z-compressed", ARCHIVE),
        (b"Rar!\x1a\x07\x01\x00" + REST, "application/vnd.rar", ARCHIVE),
        (tarred(), "application/x-tar", ARCHIVE),
        (bytes(range(256)), "application/octet-stream", None),
        (COMPOUND + b"nothing of ours", "application/octet-stream", None),
        (packed("a")[:-10], "application/octet-stream", None),
    ],
    ids=named,
)
@pytest.mark.parametrize("piece", [64 * 1024, 7])
def test_a_content_says_what_it_is(content: bytes, type_: str, kind: FileKind | None, piece: int) -> None:
    assert look(content, piece) == Found(type_, kind)


@pytest.mark.parametrize("kind", ["vnd.oasis.opendocument.text", "vnd.oasis.opendocument.spreadsheet", "epub+zip"])
def test_an_open_document_declares_itself(kind: str) -> None:
    assert look(open_document(kind)) == Found(f"application/{kind}", DOCUMENT)


@pytest.mark.parametrize(
    "content",
    [
        b"MZ\x90\x00" + REST,
        b"\x7fELF\x02\x01\x01" + REST,
        b"\xca\xfe\xba\xbe\x00\x00\x00\x34" + REST,
        b"\xcf\xfa\xed\xfe\x07\x00\x00\x01" + REST,
        b"#!/bin/sh\nrm -r ~\n",
        b"L\x00\x00\x00\x01\x14\x02\x00" + REST,
        packed("META-INF/MANIFEST.MF", "Main.class"),
        packed("AndroidManifest.xml", "classes.dex"),
        packed("folder/setup.exe"),
        packed("folder\\report.pdf.SCR"),
        packed("[Content_Types].xml", "word/document.xml", "word/vbaProject.bin"),
        COMPOUND + "WordDocument".encode("utf-16-le") + "_VBA_PROJECT".encode("utf-16-le"),
        b"<!DOCTYPE html><p>hello",
        b"  \n<html>",
        b"\xef\xbb\xbf<script>alert(1)</script>",
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
        b'<?xml version="1.0"?><x:a xmlns:x="http://www.w3.org/1999/xhtml"/>',
        "<html><body>".encode("utf-16"),
    ],
    ids=named,
)
def test_what_can_do_things_is_never_a_kind(content: bytes) -> None:
    found = look(content)
    assert (found.kind, found.runs) == (None, True)


def test_a_large_file_takes_no_more_memory_than_a_small_one() -> None:
    """The directory of a zip is read from its end, however much stands before it."""
    large = packed("[Content_Types].xml", "word/document.xml", content=b"y" * 3_000_000)
    seen = Look()
    for at in range(0, len(large), 64 * 1024):
        seen.feed(large[at : at + 64 * 1024])
        assert len(seen._head) <= HEAD  # noqa: SLF001
        assert len(seen._tail) <= TAIL  # noqa: SLF001
    assert seen.found() == Found(f"{OPEN_XML}.wordprocessingml.document", DOCUMENT)


def test_a_mark_that_two_pieces_share_is_found() -> None:
    seen = Look()
    mark = "WordDocument".encode("utf-16-le")
    for piece in (COMPOUND + b"\x00" * HEAD, mark[:9], mark[9:], b"\x00" * TAIL):
        seen.feed(piece)
    assert seen.found() == Found("application/msword", DOCUMENT)


@pytest.mark.parametrize(
    ("name", "unsafe"),
    [
        ("relatório final.pdf", False),
        ("Foto de 12:30.jpg", False),
        ("família 👨‍👩‍👧.png", False),
        ("notas", False),
        ("../../x", True),
        ("a\\b.pdf", True),
        (".bashrc", True),
        ("report.pdf.", True),
        ("report.pdf ", True),
        ("report\u202efdp.exe", True),
        ("a\nb.txt", True),
        ("half a character \ud83d.txt", True),
        ("", True),
        ("x" * 256, True),
    ],
)
def test_a_name_that_leads_elsewhere_or_deceives(name: str, unsafe: bool) -> None:
    assert is_unsafe(name) is unsafe


@pytest.mark.parametrize(
    ("name", "claimed", "program"),
    [
        ("report.pdf", "application/pdf", False),
        ("Curso de Node.js.pdf", "", False),
        ("exemplo.com.br.pdf", "", False),
        ("notes.txt", "text/plain", False),
        ("setup.exe", "", True),
        ("SETUP.ExE", "", True),
        ("setup\uff0eexe", "", True),
        ("report.exe.pdf", "", True),
        ("report.pdf.lnk", "", True),
        ("drawing.svg", "", True),
        ("page.html", "", True),
        ("letter.docm", "", True),
        ("notes.txt", "text/html", True),
        ("photo.png", "image/svg+xml", True),
    ],
)
def test_what_a_double_click_would_run(name: str, claimed: str, program: bool) -> None:
    assert is_program(name, claimed) is program


@pytest.mark.parametrize(
    ("name", "kind", "contrary"),
    [
        ("photo.jpg", IMAGE, False),
        ("photo.JPG", PDF, True),
        ("report.pdf", DOCUMENT, True),
        ("letter.doc", DOCUMENT, False),
        ("voice.ogg", AUDIO, False),
        ("voice.mp4", AUDIO, False),
        ("list.csv", TEXT, False),
        ("list.csv", DOCUMENT, True),
        ("notes.xyz", TEXT, False),
        ("notes", ARCHIVE, False),
        ("photo.png", None, True),
    ],
)
def test_a_name_that_says_something_else_than_the_content(name: str, kind: FileKind | None, contrary: bool) -> None:
    assert contradicts(name, kind) is contrary


@pytest.mark.parametrize(("name", "last"), [("a.b.PDF", "pdf"), ("a", ""), (".pdf", ""), ("a.pdf ", "pdf")])
def test_the_ending_of_a_name(name: str, last: str) -> None:
    assert ending(name) == last
