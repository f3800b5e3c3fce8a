"""The ASGI server: process startup and the HTTP protocol class for uvicorn.

May import `app` and everything below it. Read `run` first.
"""
