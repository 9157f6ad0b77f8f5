"""The machine-readable mark of generated content, written into every rendition and read back.

IPTC Photo Metadata Standard, property `Iptc4xmpExt:DigitalSourceType`, as an XMP packet:
https://cv.iptc.org/newscodes/digitalsourcetype/
"""

import re

ALGORITHMICALLY_ENHANCED = "algorithmicallyEnhanced"
COMPOSITE_WITH_AI = "compositeWithTrainedAlgorithmicMedia"

_VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    ' xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="Stefna"'
    ' Iptc4xmpExt:DigitalSourceType="{source}"/></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)


def packet(source_type: str) -> bytes:
    """Return the XMP packet that marks a picture with an IPTC source type."""
    return _PACKET.format(source=_VOCABULARY + source_type).encode()


def read(data: bytes) -> str | None:
    """Return the source type that a file is marked with, or None. The packet is never compressed."""
    found = re.search(re.escape(_VOCABULARY).encode() + rb"(\w+)", data)
    return found[1].decode() if found else None
