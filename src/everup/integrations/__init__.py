"""Other systems that everup speaks with: each a folder with pure codecs and one edge."""
