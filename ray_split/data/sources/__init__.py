"""Where samples come from: data sets by name, files, tables, other libraries' objects; as arrays that torch takes."""
