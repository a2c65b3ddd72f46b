"""Visavis against Element's own engine: `matrix-js-sdk` with its Rust cryptography, run by Node."""
