"""One file per family of decoders; each exposes ``FAMILY``, a :class:`mnemoscope.codec.decoder.Decoder`."""
