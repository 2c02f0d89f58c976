"""One question about one image: locate, highlight, answer. Run it from anywhere."""

from pathlib import Path

from cof import CoF

image = Path(__file__).with_name("scene.jpg")
cof = CoF.from_pretrained("cof-tiny", weight=4.5, expand=1.2, max_new_tokens=32)
outcome = cof(image, "What color is the shape marked 8?", plain=True)

print(outcome)
print("plain  ", outcome.plain)
print("answer ", outcome.text, f"(log-probability {outcome.logprob:.3f})")
outcome.plot().savefig("two_stages.png")
outcome.plot_attention().savefig("attention.png")

star, plus = cof(image, ["Is there a yellow star?", "Is there a red plus?"])
print(f"p(yes) {star.p_yes:.2f} for the star, {plus.p_yes:.2f} for the plus")
