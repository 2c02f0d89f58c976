"""Pure geometry: a reply -> boxes -> visual tokens -> the bias of attention scores."""
