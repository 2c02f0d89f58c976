"""From records to numbers, tables and figures; nothing here runs a model."""
