"""Atari 2600 games through ale-py's C++ vector environment, under named protocols."""

from envs.atari.config import AtariConfig
from envs.atari.games import game_names, normalise_game
from envs.atari.presets import ATARI_PRESETS, AtariPreset, atari_protocol

__all__ = ["ATARI_PRESETS", "AtariConfig", "AtariPreset", "atari_protocol", "game_names", "normalise_game"]
