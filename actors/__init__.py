"""The roles of split learning as plain classes, and the two backends that connect them."""
