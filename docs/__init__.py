"""The site: pages, how their code is run, and how their pictures are drawn."""
