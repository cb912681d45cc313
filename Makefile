# make book · make test: each makes .venv first when it is not there. Another Python: make PYTHON=/path/to/python3
.PHONY: help environment book serve test notebooks bench experiments figures links lock clean
export PYTHON
python := .venv/bin/python

help:
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /make \1: /'

environment: ## make or refresh .venv
	@tools/environment

book: environment ## build the HTML book from the executed notebooks, warnings being errors
	rm -rf _build
	.venv/bin/jupyter-book build --quiet --warningiserror --nitpick --keep-going .
	@$(python) -c "from pathlib import Path; print('The book is built. Open it, or run make serve:\n' + Path('_build/html/index.html').absolute().as_uri())"

serve: environment ## build the book if need be and serve it on this machine, at port 8000
	@test -f _build/html/index.html || $(MAKE) --no-print-directory book
	$(python) -m http.server --bind 127.0.0.1 --directory _build/html 8000

test: environment ## run everything: style, tests, every notebook
	@tools/test

notebooks: environment ## execute all notebooks in place and normalise them
	$(python) tools/notebooks.py

bench: environment ## print the speed table
	$(python) tools/bench.py

experiments: environment ## run what is missing of all studies, which takes hours
	@for study in $$(.venv/bin/policyopt study list | cut -d' ' -f1); do .venv/bin/policyopt study run $$study || exit 1; done

figures: environment ## draw the pictures the repository keeps
	$(python) tools/figures.py

links: environment ## check that the book's links to other sites work (needs the network)
	.venv/bin/jupyter-book build --quiet --builder linkcheck .

lock: environment ## write requirements.txt from what .venv holds
	$(python) tools/lock.py

clean: ## remove what the other targets made, .venv among it
	rm -rf .venv _build .pytest_cache .ruff_cache
