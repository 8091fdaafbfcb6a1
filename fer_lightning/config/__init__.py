"""Configs as plain data: composing, checking, comparing, and building objects from them."""
