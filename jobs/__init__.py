"""What a person starts: the `m3col` command. No training or search logic lives here."""
