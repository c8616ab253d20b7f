"""Which format a file is in, by what its source declares or by its name."""

from __future__ import annotations

from pathlib import PurePosixPath

from llmops.corpus._problems import Unreadable

__all__ = [
    "CSV",
    "DOCX",
    "EML",
    "HTML",
    "IPYNB",
    "MARKDOWN",
    "PDF",
    "PPTX",
    "RST",
    "TEXT",
    "TSV",
    "XLSX",
    "media_type_of",
]

_OFFICE = "application/vnd.openxmlformats-officedocument"
MARKDOWN = "text/markdown"
RST = "text/x-rst"
HTML = "text/html"
TEXT = "text/plain"
PDF = "application/pdf"
DOCX = f"{_OFFICE}.wordprocessingml.document"
PPTX = f"{_OFFICE}.presentationml.presentation"
XLSX = f"{_OFFICE}.spreadsheetml.sheet"
CSV = "text/csv"
TSV = "text/tab-separated-values"
IPYNB = "application/x-ipynb+json"
EML = "message/rfc822"

_SUFFIXES = {
    MARKDOWN: ".md .markdown",
    RST: ".rst",
    HTML: ".html .htm .xhtml",
    TEXT: ".txt .text",
    PDF: ".pdf",
    DOCX: ".docx .docm .dotx .dotm",
    PPTX: ".pptx .pptm .ppsx .ppsm .potx .potm",
    XLSX: ".xlsx .xlsm .xltx .xltm",
    CSV: ".csv",
    TSV: ".tsv .tab",
    IPYNB: ".ipynb",
    EML: ".eml",
}
_BY_SUFFIX = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}

_OTHER_NAMES = {
    "text/x-markdown": MARKDOWN,
    "text/prs.fallenstein.rst": RST,
    "text/rst": RST,
    "application/xhtml+xml": HTML,
    "application/x-pdf": PDF,
    "application/csv": CSV,
    "application/vnd.jupyter": IPYNB,
    "application/vnd.ms-word.document.macroenabled.12": DOCX,
    "application/vnd.ms-powerpoint.presentation.macroenabled.12": PPTX,
    "application/vnd.ms-excel.sheet.macroenabled.12": XLSX,
}
_SAYS_NOTHING = {
    "",
    "application/octet-stream",
    "binary/octet-stream",
    "application/zip",
    "application/x-zip-compressed",
}

_SAVE_AS = {
    "save it as .docx": ".doc .dot .rtf .odt .ott .wps .wpd .pages .docb",
    "save it as .xlsx or .csv": ".xls .xlt .xlsb .ods .ots .numbers .dif .slk",
    "save it as .pptx or PDF": ".ppt .pps .pot .odp .otp .key",
    "save the message as .eml": ".msg .pst .ost .mbox .emlx",
    "save it as PDF with a text layer (OCR)": (
        ".png .jpg .jpeg .gif .bmp .tif .tiff .webp .heic .svg .psd .ico .icns .sgi .djvu .xps .ps .eps"
    ),
    "unpack it and add the files that are in it": ".zip .7z .rar .tar .gz .tgz .bz2 .xz .z .zst .lzma .jar .iso .cab",
    "save it as HTML or PDF": ".epub .mobi .chm .tex .latex .vsd .vsdx .one .pub",
    "add its transcript as text": ".mp3 .mp4 .wav .m4a .ogg .webm .mov .avi .mkv",
}
_HINTS = {suffix: hint for hint, suffixes in _SAVE_AS.items() for suffix in suffixes.split()}
_HINTS |= {
    "application/msword": "save it as .docx",
    "application/rtf": "save it as .docx",
    "application/vnd.ms-excel": "save it as .xlsx or .csv",
    "application/vnd.ms-powerpoint": "save it as .pptx or PDF",
    "application/vnd.ms-outlook": "save the message as .eml",
}
_READ = (
    "Markdown, reStructuredText, HTML, plain text, PDF, Word, PowerPoint, Excel, CSV, Jupyter notebooks "
    "and e-mails are"
)


def media_type_of(path: str, declared: str | None = None) -> str:
    """Return a file's format, as declared or by its name; raises Unreadable when none here reads it."""
    suffix = PurePosixPath(path).suffix.lower()
    given = (declared or "").partition(";")[0].strip().lower()
    if given in _SAYS_NOTHING:
        found = _BY_SUFFIX.get(suffix)
    else:
        found = given if given in _SUFFIXES else _OTHER_NAMES.get(given)
    if found is None:
        shown = suffix or "no suffix" if given in _SAYS_NOTHING else given
        hint = (
            _HINTS.get(given)
            or _HINTS.get(suffix)
            or ("" if given in _SAYS_NOTHING else _hint_of_kind(given))
        )
        raise Unreadable(f"its format ({shown}) is not supported: {hint or _READ}", "unsupported")
    return found


def _hint_of_kind(media_type: str) -> str:
    kind = media_type.partition("/")[0]
    return {"image": _HINTS[".png"], "audio": _HINTS[".mp3"], "video": _HINTS[".mp4"]}.get(kind, "")
