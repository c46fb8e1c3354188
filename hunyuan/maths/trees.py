"""Small changes to trees."""

from hunyuan.maths.grammar import Call, Name, Operation, Relation, Sequence, Tree, children


def with_children(tree: Tree, parts: tuple[Tree, ...]) -> Tree:
    """The same node over other parts."""
    match tree:
        case Operation(operator, _):
            return Operation(operator, parts)
        case Call(function, _):
            return Call(function, parts)
        case Relation(operator, _, _):
            return Relation(operator, parts[0], parts[1])
        case Sequence(_):
            return Sequence(parts)
        case _:
            return tree


def substituted(tree: Tree, values: dict[str, Tree]) -> Tree:
    """With the names in ``values`` replaced."""
    if isinstance(tree, Name):
        return values.get(tree.name, tree)
    return with_children(tree, tuple(substituted(part, values) for part in children(tree)))
