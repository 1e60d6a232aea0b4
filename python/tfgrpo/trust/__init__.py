"""Trust: what a proposed operation has to pass before it may change a library."""

from tfgrpo.trust.screens import Overtaken, Screen, Screened, screened

__all__ = ["Overtaken", "Screen", "Screened", "screened"]
