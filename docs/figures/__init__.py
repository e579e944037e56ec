"""The drawings of the site, each computed by the library: `python -m docs.figures` draws them anew."""
