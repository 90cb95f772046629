"""What did each lever buy? Numbers with intervals beside their nulls."""
