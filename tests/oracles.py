"""Slow, obvious versions of what the package does; nothing here imports the package."""

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
