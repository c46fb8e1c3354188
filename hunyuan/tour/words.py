"""The facts of the tiny world, each in English and in Chinese."""

CAPITALS = (
    ("France", "Paris", "法国", "巴黎"),
    ("China", "Beijing", "中国", "北京"),
    ("Japan", "Tokyo", "日本", "东京"),
    ("Germany", "Berlin", "德国", "柏林"),
    ("Italy", "Rome", "意大利", "罗马"),
    ("Spain", "Madrid", "西班牙", "马德里"),
    ("Egypt", "Cairo", "埃及", "开罗"),
    ("Kenya", "Nairobi", "肯尼亚", "内罗毕"),
    ("Peru", "Lima", "秘鲁", "利马"),
    ("Cuba", "Havana", "古巴", "哈瓦那"),
    ("Canada", "Ottawa", "加拿大", "渥太华"),
    ("Greece", "Athens", "希腊", "雅典"),
    ("Norway", "Oslo", "挪威", "奥斯陆"),
    ("Russia", "Moscow", "俄罗斯", "莫斯科"),
    ("Poland", "Warsaw", "波兰", "华沙"),
    ("Austria", "Vienna", "奥地利", "维也纳"),
    ("Portugal", "Lisbon", "葡萄牙", "里斯本"),
    ("Thailand", "Bangkok", "泰国", "曼谷"),
    ("Vietnam", "Hanoi", "越南", "河内"),
    ("Ireland", "Dublin", "爱尔兰", "都柏林"),
)

OPPOSITES = (
    ("hot", "cold", "热", "冷"),
    ("big", "small", "大", "小"),
    ("fast", "slow", "快", "慢"),
    ("high", "low", "高", "低"),
    ("new", "old", "新", "旧"),
    ("light", "dark", "亮", "暗"),
    ("open", "closed", "开", "关"),
    ("long", "short", "长", "短"),
    ("full", "empty", "满", "空"),
    ("early", "late", "早", "晚"),
    ("wet", "dry", "湿", "干"),
    ("left", "right", "左", "右"),
)

ANIMALS = (
    ("cat", "猫", "fish", "鱼"),
    ("dog", "狗", "bones", "骨头"),
    ("horse", "马", "grass", "草"),
    ("panda", "熊猫", "bamboo", "竹子"),
    ("rabbit", "兔子", "carrots", "胡萝卜"),
    ("monkey", "猴子", "bananas", "香蕉"),
    ("cow", "牛", "hay", "干草"),
    ("bear", "熊", "honey", "蜂蜜"),
    ("bird", "鸟", "seeds", "种子"),
    ("mouse", "老鼠", "cheese", "奶酪"),
)

NAMES = (
    ("Anna", "安娜"),
    ("Ben", "小本"),
    ("Clara", "小雅"),
    ("David", "大伟"),
    ("Emma", "小梅"),
    ("Leo", "小乐"),
    ("Mia", "米娅"),
    ("Tom", "汤姆"),
)

PLACES = (
    ("the park", "公园"),
    ("the river", "河边"),
    ("the forest", "森林"),
    ("the market", "市场"),
    ("the school", "学校"),
    ("the hill", "小山"),
    ("the garden", "花园"),
    ("the beach", "海滩"),
)

WEATHER = (
    ("sunny", "晴朗"),
    ("rainy", "下雨"),
    ("windy", "有风"),
    ("snowy", "下雪"),
)
