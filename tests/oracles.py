"""Slow, obvious versions of what the package does; nothing here imports the package."""

from fractions import Fraction

# --- Regions: rectangles in exact fractions, one cell at a time ---


def exact(value):
    """A decimal as it was meant: 0.1 is one tenth, not the nearest float."""
    return Fraction(str(value))


def padded_cell(row, column, grid, size):
    """The rectangle of one token over the padded square, in fractions of the original image."""
    rows, columns = grid
    width, height = size
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    x = [(Fraction(side * (column + k), columns) - left) / width for k in (0, 1)]
    y = [(Fraction(side * (row + k), rows) - top) / height for k in (0, 1)]
    return (x[0], y[0], x[1], y[1])


def cropped_cell(row, column, grid, size, pixels):
    """The same for a resized shortest edge and a centre crop of pixels x pixels."""
    rows, columns = grid
    short = min(size)
    resized = [int(pixels * edge / short) for edge in size]
    left, top = (resized[0] - pixels) // 2, (resized[1] - pixels) // 2
    x = [(left + Fraction(pixels * (column + k), columns)) / resized[0] for k in (0, 1)]
    y = [(top + Fraction(pixels * (row + k), rows)) / resized[1] for k in (0, 1)]
    return (x[0], y[0], x[1], y[1])


def shares_area(box, cell):
    """Whether two rectangles (x0, y0, x1, y1) overlap by more than a line."""
    width = min(box[2], cell[2]) - max(box[0], cell[0])
    height = min(box[3], cell[3]) - max(box[1], cell[1])
    return width > 0 and height > 0


def intersection(a, b):
    """What two rectangles share; reversed corners where they share nothing."""
    return (max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))


def unpad(quad, size):
    """Fractions of the padded square -> fractions of the original image, not clipped."""
    width, height = size
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    x0, y0, x1, y1 = (exact(value) for value in quad)
    return (
        (x0 * side - left) / width,
        (y0 * side - top) / height,
        (x1 * side - left) / width,
        (y1 * side - top) / height,
    )


# --- MME: the converter and the scorer as they are published, in plain loops ---


def mme_convert(truths, rows):
    """LLaVA's answers -> subtask -> lines of (file, question, truth, answer).

    truths: {(subtask, "0001.txt", question as in the release): "Yes" | "No"}
    rows: dicts with question_id, prompt, text.
    """
    lines = {}
    for row in rows:
        parts = row["question_id"].split("/")
        file = parts[-1].split(".")[0] + ".txt"
        prompt = row["prompt"]
        if "Answer the question using a single word or phrase." in prompt:
            prompt = prompt.replace("Answer the question using a single word or phrase.", "")
            prompt = prompt.strip()
        if "Please answer yes or no." not in prompt:
            prompt = prompt + " Please answer yes or no."
            if (parts[0], file, prompt) not in truths:
                head = prompt[: -len(" Please answer yes or no.")]
                prompt = head + "  Please answer yes or no."
        truth = truths[(parts[0], file, prompt)]
        lines.setdefault(parts[0], []).append((file, prompt, truth, row["text"]))
    return lines


def mme_label(answer):
    answer = answer.lower()
    if answer == "yes" or answer == "no":
        return answer
    if "yes" in answer[0:4]:
        return "yes"
    if "no" in answer[0:4]:
        return "no"
    return "other"


def mme_scores(lines):
    """{subtask: (n, acc, acc_plus, score)}; lines 2k and 2k+1 are one image."""
    scores = {}
    for subtask, rows in lines.items():
        right = 0
        both = 0
        for first in range(0, len(rows), 2):
            pair = 0
            for _, _, truth, answer in rows[first : first + 2]:
                if mme_label(answer) == truth.lower():
                    pair += 1
            right += pair
            both += pair == 2
        acc = right / len(rows)
        acc_plus = both / (len(rows) // 2)
        scores[subtask] = (len(rows), acc, acc_plus, acc * 100 + acc_plus * 100)
    return scores


# --- POPE: LLaVA's eval_pope in plain loops ---


def pope_prediction(text):
    if text.find(".") != -1:
        text = text.split(".")[0]
    text = text.replace(",", "")
    for word in text.split(" "):
        if word == "No" or word == "not" or word == "no":
            return "no"
    return "yes"


def pope_setting(predictions, labels):
    """(tp, fp, tn, fn, accuracy, precision, recall, f1, yes_ratio)"""
    tp = fp = tn = fn = 0
    for prediction, label in zip(predictions, labels, strict=True):
        if prediction == "yes" and label == "yes":
            tp += 1
        elif prediction == "yes":
            fp += 1
        elif label == "no":
            tn += 1
        else:
            fn += 1
    precision = float(tp) / float(tp + fp)
    recall = float(tp) / float(tp + fn)
    f1 = 2 * precision * recall / (precision + recall)
    accuracy = (tp + tn) / (tp + tn + fp + fn)
    return tp, fp, tn, fn, accuracy, precision, recall, f1, predictions.count("yes") / len(labels)


# --- MMBench: circular accuracy as the paper words it ---


def mmbench_scores(rows, predictions):
    """rows: dicts with index and answer; predictions: {index: letter}. (circular, vanilla)"""
    right = {}
    plain = []
    for row in rows:
        hit = predictions[row["index"]] == row["answer"]
        base = row["index"]
        while base >= 1000000:
            base -= 1000000
        right[base] = right.get(base, True) and hit
        if row["index"] == base:
            plain.append(hit)
    return list(right.values()).count(True) / len(right), plain.count(True) / len(plain)


# --- TextVQA: the soft accuracy as the challenge words it, on answers that need no normalising ---


def vqa_accuracy(answer, truths):
    """Average over the ten ways to leave one human out of min(1, how many others agree / 3)."""
    total = 0
    for left_out in range(len(truths)):
        others = truths[:left_out] + truths[left_out + 1 :]
        total += min(1, others.count(answer) / 3)
    return total / len(truths)


# --- RefCOCO: intersection over union by counting pixels ---


def pixel_iou(first, second, side):
    """Boxes are (x0, y0, x1, y1) in whole pixels of a side x side image."""
    both = either = 0
    for x in range(side):
        for y in range(side):
            inside = [b[0] <= x < b[2] and b[1] <= y < b[3] for b in (first, second)]
            both += all(inside)
            either += any(inside)
    return both / either
