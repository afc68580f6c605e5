<?php

namespace App\Models;

class NotificationQueue extends CompanyRecord
{
}
