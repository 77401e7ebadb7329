"""The small pure core that both deciding processes run: one event in, rooms in a fixed order,
facts until all is quiet, actions out, each behind its journal entry."""
