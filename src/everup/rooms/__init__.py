"""The rooms: each holds all of one concern, and knows no other room."""
