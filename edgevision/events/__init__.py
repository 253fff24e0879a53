"""Stage `events`: predictions become events: one file a rule."""
