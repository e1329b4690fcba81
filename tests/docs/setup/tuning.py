"""What docs/tuning.md takes for given: an index that is large enough to be optimized, and questions."""

from muvera_core import MuveraIndex

birds = ["owl", "heron", "stork", "wren", "finch", "robin", "crane", "swift", "eagle", "raven", "goose", "swan"]
places = ["wood", "reed", "city", "hall", "marsh", "field", "cliff", "barn", "park", "river"]
acts = ["sings", "nests", "hunts", "rests"]
texts = [f"The {bird} {act} in the {place}." for bird in birds for act in acts for place in places]
index = MuveraIndex.create(None)
index.add(texts)
questions = [f"Where does the {bird} rest?" for bird in birds]
