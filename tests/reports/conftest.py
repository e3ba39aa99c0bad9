"""The real vocabulary, with which the page about a data set counts tokens."""

from tests.data.conftest import model_directory as model_directory
