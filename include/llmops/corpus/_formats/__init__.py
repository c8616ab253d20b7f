"""One reader per document format: a file's bytes, or its decoded text, as Markdown with a title.

Readers run in a sandboxed process. They write no file, start no process and reach no network, and the same
bytes give the same text on every machine.
"""
