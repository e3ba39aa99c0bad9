"""Fixture with the real vocabulary, to count tokens for the page about a data set."""

from tests.data.conftest import model_directory as model_directory
