"""What commands share: how they find a manager, options, columns."""
