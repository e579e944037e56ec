"""Small layers: each a few lines, each equal to a closed form, and some that learn the rules they obey."""
