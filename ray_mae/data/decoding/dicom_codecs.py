"""What pydicom's decoding plugins leave out: 12-bit JPEG, and a look at a stream before decoding."""

import gdcm
from pydicom.pixels.decoders import JPEGExtended12BitDecoder
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import JPEGExtended12Bit

DECODER_DEPENDENCIES = {JPEGExtended12Bit: ("gdcm>=3.0.24",)}


def is_available(uid: str) -> bool:
    """Part of pydicom's protocol for plugins."""
    return uid in DECODER_DEPENDENCIES


def decode_extended_jpeg(src: bytes, runner: DecodeRunner) -> bytes:
    """One frame of JPEG Extended with samples of 12 bits, through GDCM.

    pydicom's own GDCM plugin refuses these (older GDCM could not), and the other decoder that
    takes them, pylibjpeg-libjpeg, is GPL-3. GDCM tries its 8-bit JPEG first and says so on standard
    error ("Unsupported JPEG data precision 12"): harmless.
    """
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(src)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    pixels = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    pixels.SetValue(fragments.__ref__())

    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(pixels)
    kind = gdcm.PhotometricInterpretation.GetPIType(str(runner.photometric_interpretation))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    syntax = gdcm.TransferSyntax.GetTSType(str.__str__(runner.transfer_syntax))
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    bits = runner.bits_stored
    image.SetPixelFormat(
        gdcm.PixelFormat(
            runner.samples_per_pixel, runner.bits_allocated, bits, bits - 1,
            runner.pixel_representation,
        )
    )  # fmt: skip
    # GDCM hands C strings to Python as text; this is how the bytes come back out of it.
    return bytes(image.GetBuffer().encode("utf-8", "surrogateescape"))


if "ray_mae" not in JPEGExtended12BitDecoder.available_plugins:
    JPEGExtended12BitDecoder.add_plugin("ray_mae", (__name__, "decode_extended_jpeg"))


_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}


def coded_size(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 stream declares, None if it has no such.

    A decoder takes memory for this size, whatever the DICOM header says, so it is looked at first.
    """
    start = stream[:4096].find(b"\xff\x4f\xff\x51")  # SOC and SIZ, bare or inside a JP2 box
    if start >= 0:
        right, bottom, left, top = (
            int.from_bytes(stream[start + i : start + i + 4]) for i in (8, 12, 16, 20)
        )
        return bottom - top, right - left
    if stream[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker in _START_OF_FRAME:
            return (
                int.from_bytes(stream[at + 5 : at + 7]),
                int.from_bytes(stream[at + 7 : at + 9]),
            )
        if marker == 0xFF:  # padding before a marker
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + int.from_bytes(stream[at + 2 : at + 4])
    return None
