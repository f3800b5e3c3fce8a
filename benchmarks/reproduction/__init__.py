"""The claims of four papers, measured again with this library; `make reproduce` writes docs/reproduction.md.

- `stage`: what a stage is and what it reports; read it first.
- `stages`: one module for each stage, found by itself.
- `cache`: reports and pictures of earlier runs, as long as the code that made them is the same.
- `runner`: runs stages in processes of their own.
- `page`: the page.
"""
