"""Studies made with the package; each is a package run as `python -m studies.<name>`."""
