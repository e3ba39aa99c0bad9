"""Figures: a built-in data set of drawn problems, generated from their index."""

from sejax.data.figures.board import SIZES, bmp
from sejax.data.figures.family import LEVELS, Problem, Wrong
from sejax.data.figures.problems import FAMILIES, LEARNABLE, SPLITS, Mixture, problem
from sejax.data.figures.source import Figures, source

__all__ = [
  "FAMILIES",
  "LEARNABLE",
  "LEVELS",
  "SIZES",
  "SPLITS",
  "Figures",
  "Mixture",
  "Problem",
  "Wrong",
  "bmp",
  "problem",
  "source",
]
