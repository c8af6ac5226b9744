"""The roles of split learning as plain classes, and the two wirings that connect them."""
