"""What `package.module:function`, and functions given to the settings, stand for: found, checked, told by a digest."""
