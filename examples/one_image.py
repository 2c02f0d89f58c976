"""One question about one image: locate, highlight, answer. Run it from anywhere."""

from pathlib import Path

from cof import CoF

image = Path(__file__).with_name("scene.jpg")
cof = CoF.from_pretrained("cof-tiny", weight=2, expand=1.2, max_new_tokens=32)
outcome = cof(image, "Is the object with the number 7 red?", plain=True)

print(outcome)
print(f"plain  {outcome.plain}, p(yes) {outcome.yes_no.plain:.2f}")
print(f"CoF    {outcome.text}, p(yes) {outcome.p_yes:.2f}")
outcome.plot().savefig("two_stages.png")
outcome.plot_attention().savefig("attention.png")

for one in cof(image, ["Which shape is marked 3?", "Is there a red plus?"]):
    print(one)
