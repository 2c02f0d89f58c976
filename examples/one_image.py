"""One question about one image: locate, highlight, answer. Run it from anywhere."""

from pathlib import Path

from cof import CoF

image = Path(__file__).with_name("scene.jpg")
cof = CoF.from_pretrained("cof-tiny")
outcome = cof(image, "What color is the shape marked 8?", plain=True)

print("region ", outcome.boxes)
print("plain  ", outcome.plain)
print("answer ", outcome.text)
outcome.plot().savefig("two_stages.png")
